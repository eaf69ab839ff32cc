/* What the two sides of the bridge ask of each other. Plain C types only: each side has headers that the other
 * cannot include. Both are compiled for the same ABI, so the pointers that cross are the same objects. */
#include <stddef.h>
#include <stdint.h>

/* linux.c: vkd3d's entry points, as HRESULTs. */
int bridge_create_device(int level, const void *iid, void **device, uint32_t luid_low, int32_t luid_high);
int bridge_serialize(const void *description, int version, void **blob, void **error);
int bridge_serialize_versioned(const void *description, void **blob, void **error);
int bridge_deserializer(const void *data, size_t size, const void *iid, void **deserializer);
int bridge_versioned_deserializer(const void *data, size_t size, const void *iid, void **deserializer);

/* windows.c: what vkd3d needs of Windows, as HRESULTs. */
int bridge_set_event(void *event);
void *bridge_create_thread(void *(*body)(void *), void *data);
int bridge_join_thread(void *thread);
