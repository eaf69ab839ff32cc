/* The Windows side of the bridge: d3d12.dll's functions, and the events and threads that vkd3d needs. Built by winegcc.
 *
 * vkd3d's COM objects follow the Windows calling convention on x86-64, so they are handed on as they are. */
#include <windows.h>
#include <dxgi.h>

#include "bridge.h"

struct body {
    void *(*run)(void *);
    void *data;
};

static DWORD WINAPI run_body(void *argument)
{
    struct body body = *(struct body *)argument;
    HeapFree(GetProcessHeap(), 0, argument);
    body.run(body.data);
    return 0;
}

int bridge_set_event(void *event)
{
    return SetEvent(event) ? S_OK : E_FAIL;
}

/* vkd3d's threads touch Windows objects, so Windows must know them: a pthread would not do. */
void *bridge_create_thread(void *(*run)(void *), void *data)
{
    HANDLE thread;
    struct body *body = HeapAlloc(GetProcessHeap(), 0, sizeof *body);
    if (!body)
        return NULL;
    body->run = run;
    body->data = data;
    thread = CreateThread(NULL, 0, run_body, body, 0, NULL);
    if (!thread)
        HeapFree(GetProcessHeap(), 0, body);
    return thread;
}

int bridge_join_thread(void *thread)
{
    DWORD waited = WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
    return waited == WAIT_OBJECT_0 ? S_OK : E_FAIL;
}

static LUID luid_of(IUnknown *object)
{
    static const GUID iid_adapter = {0x2411e7e1, 0x12ac, 0x4ccf, {0xbd, 0x14, 0x97, 0x98, 0xe8, 0x53, 0x4d, 0xc0}};
    DXGI_ADAPTER_DESC description = {0};
    IDXGIAdapter *adapter;
    if (object && SUCCEEDED(object->lpVtbl->QueryInterface(object, &iid_adapter, (void **)&adapter))) {
        adapter->lpVtbl->GetDesc(adapter, &description);
        adapter->lpVtbl->Release(adapter);
    }
    return description.AdapterLuid;
}

HRESULT WINAPI D3D12CreateDevice(IUnknown *adapter, int level, REFIID iid, void **device)
{
    LUID luid = luid_of(adapter);
    void *probe = NULL;
    HRESULT result = bridge_create_device(level, iid, device ? device : &probe, luid.LowPart, luid.HighPart);
    if (SUCCEEDED(result) && !device) {
        ((IUnknown *)probe)->lpVtbl->Release(probe);
        return S_FALSE;
    }
    return result;
}

HRESULT WINAPI D3D12GetDebugInterface(REFIID iid, void **debug)
{
    if (debug)
        *debug = NULL;
    return E_NOTIMPL;
}

HRESULT WINAPI D3D12EnableExperimentalFeatures(UINT count, const IID *features, void *configurations, UINT *sizes)
{
    return E_NOINTERFACE;
}

HRESULT WINAPI D3D12SerializeRootSignature(const void *description, int version, void **blob, void **error)
{
    return bridge_serialize(description, version, blob, error);
}

HRESULT WINAPI D3D12SerializeVersionedRootSignature(const void *description, void **blob, void **error)
{
    return bridge_serialize_versioned(description, blob, error);
}

HRESULT WINAPI D3D12CreateRootSignatureDeserializer(const void *data, SIZE_T size, REFIID iid, void **out)
{
    return bridge_deserializer(data, size, iid, out);
}

HRESULT WINAPI D3D12CreateVersionedRootSignatureDeserializer(const void *data, SIZE_T size, REFIID iid, void **out)
{
    return bridge_versioned_deserializer(data, size, iid, out);
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, void *reserved)
{
    return TRUE;
}
