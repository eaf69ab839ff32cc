/* A fake of libnvidia-ml.so.1 and libcuda.so.1 in one: one GPU of 24 GiB, 3 of them used, of which 1 by the caller. */
#include <string.h>
#include <unistd.h>

#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define LOST 15

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process_t;

static int entered, looks;

int nvmlInitWithFlags(unsigned flags) { entered++; return 0; }
int nvmlShutdown(void) { entered--; return 0; }
const char *nvmlErrorString(int code) { return "words of the driver"; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = &entered;
    return strcmp(uuid, "GPU-01020304-0506-0708-090a-0b0c0d0e0f10") ? NOT_FOUND : 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    *device = &entered;
    return strcmp(bus, "0000:01:00.0") ? NOT_FOUND : 0;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory_t now = {24ull << 30, 21ull << 30, 3ull << 30};
    *memory = now;
    return looks++ == 1 ? LOST : 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *found) {
    process_t now[2] = {{1, 2ull << 30, 0, 0}, {getpid(), 1ull << 30, 0, 0}};
    unsigned room = *count;
    *count = 2;
    if (room < 2) return INSUFFICIENT_SIZE;
    memcpy(found, now, sizeof now);
    return 0;
}

int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return ordinal ? 101 : 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = i + 1;
    return device == 40 ? 0 : 101;
}
