/* The Linux side of the bridge: Debian's vkd3d 2.x, which understands DXIL. Built with gcc and vkd3d's own headers. */
#include <vkd3d_types.h>
#include <vkd3d.h>

#include "bridge.h"

static HRESULT signal_event(HANDLE event)
{
    return bridge_set_event(event);
}

static void *create_thread(PFN_vkd3d_thread body, void *data)
{
    return bridge_create_thread(body, data);
}

static HRESULT join_thread(void *thread)
{
    return bridge_join_thread(thread);
}

int bridge_create_device(int level, const void *iid, void **device, uint32_t luid_low, int32_t luid_high)
{
    struct vkd3d_application_info application = {
        .type = VKD3D_STRUCTURE_TYPE_APPLICATION_INFO,
        .api_version = VKD3D_API_VERSION_2_1,
    };
    struct vkd3d_instance_create_info instance = {
        .type = VKD3D_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .next = &application,
        .pfn_signal_event = signal_event,
        .pfn_create_thread = create_thread,
        .pfn_join_thread = join_thread,
        .wchar_size = 2,
    };
    struct vkd3d_device_create_info info = {
        .type = VKD3D_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .minimum_feature_level = level,
        .instance_create_info = &instance,
        .adapter_luid = {luid_low, luid_high},
    };
    return vkd3d_create_device(&info, iid, device);
}

int bridge_serialize(const void *description, int version, void **blob, void **error)
{
    return vkd3d_serialize_root_signature(description, version, (ID3DBlob **)blob, (ID3DBlob **)error);
}

int bridge_serialize_versioned(const void *description, void **blob, void **error)
{
    return vkd3d_serialize_versioned_root_signature(description, (ID3DBlob **)blob, (ID3DBlob **)error);
}

int bridge_deserializer(const void *data, size_t size, const void *iid, void **deserializer)
{
    return vkd3d_create_root_signature_deserializer(data, size, iid, deserializer);
}

int bridge_versioned_deserializer(const void *data, size_t size, const void *iid, void **deserializer)
{
    return vkd3d_create_versioned_root_signature_deserializer(data, size, iid, deserializer);
}
