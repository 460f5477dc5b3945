/* libnvidia-ml.so.1 for tests: answers NVML calls from a scenario file (format: README.md beside this file).
 *
 * Signatures and structures are those of NVIDIA's nvml.h; only what the probe and common tools call is here. A function
 * that the scenario takes away (`without`) answers FUNCTION_NOT_FOUND, as NVIDIA's Python binding says it for a symbol
 * that an older library lacks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, NO_FUNCTION = 13, UNKNOWN = 999 };
enum { GPUS = 16, INSTANCES = 8, PROCESSES = 32, REFUSALS = 64 };

typedef unsigned int uint;
typedef unsigned long long ull;

typedef struct { uint pid; ull used; int graphics; } process;

typedef struct device {
    char name[96], uuid[96];
    int major, minor;
    ull total, used, reserved;
    int memory, ecc, mig, rows, links, fabric; /* present or not */
    ull ecc_uncorrected;
    uint rows_pending, rows_failed, active_links, fabric_state;
    uint persistence, compute_mode, generation, generation_max, width, width_max;
    process processes[PROCESSES];
    int process_count, instance_count;
    struct device *instances[INSTANCES];
} device;

typedef struct { char function[64]; int gpu, code; } refusal; /* gpu -1: all; code -1: hangs */

static char driver[64] = "580.159.03";
static int cuda = 13000, gpu_count;
static device *gpus[GPUS];
static refusal refusals[REFUSALS];
static int refusal_count, loaded;

static device *new_device(const char *name) {
    device *d = calloc(1, sizeof *d);
    snprintf(d->name, sizeof d->name, "%s", name);
    d->generation = d->generation_max = 4;
    d->width = d->width_max = 16;
    return d;
}

static void refuse(const char *function, int gpu, int code) {
    if (refusal_count == REFUSALS) return;
    refusal *r = &refusals[refusal_count++];
    snprintf(r->function, sizeof r->function, "%s", function);
    r->gpu = gpu;
    r->code = code;
}

static void read_device_line(device *d, char *line) {
    char key[64] = "", word[96] = "", rest[96] = "";
    ull a = 0, b = 0, c = 0;
    sscanf(line, "%63s", key);
    char *value = line + strlen(key);
    while (*value == ' ') value++;
    if (!strcmp(key, "uuid")) snprintf(d->uuid, sizeof d->uuid, "%s", value);
    else if (!strcmp(key, "capability")) sscanf(value, "%d.%d", &d->major, &d->minor);
    else if (!strcmp(key, "memory")) {
        d->memory = sscanf(value, "%llu %llu %llu", &a, &b, &c) >= 1;
        d->total = a << 20, d->used = b << 20, d->reserved = c << 20;
    } else if (!strcmp(key, "ecc")) d->ecc = sscanf(value, "%llu", &d->ecc_uncorrected) == 1;
    else if (!strcmp(key, "remapped")) d->rows = sscanf(value, "%u %u", &d->rows_pending, &d->rows_failed) == 2;
    else if (!strcmp(key, "nvlinks")) d->links = 1, d->active_links = (uint)atoi(value);
    else if (!strcmp(key, "fabric")) d->fabric = 1, d->fabric_state = (uint)atoi(value);
    else if (!strcmp(key, "mig")) d->mig = 1 + !strcmp(value, "on");
    else if (!strcmp(key, "persistence")) d->persistence = (uint)atoi(value);
    else if (!strcmp(key, "compute-mode")) d->compute_mode = (uint)atoi(value);
    else if (!strcmp(key, "pcie")) sscanf(value, "%u %u %u %u", &d->generation, &d->generation_max, &d->width, &d->width_max);
    else if (!strcmp(key, "process") && d->process_count < PROCESSES) {
        process *p = &d->processes[d->process_count++];
        if (sscanf(value, "%u %llu %95s", &p->pid, &a, rest) >= 2) p->used = a << 20, p->graphics = !strcmp(rest, "graphics");
    } else if (!strcmp(key, "instance") && d->instance_count < INSTANCES) {
        if (sscanf(value, "%95s %95s %llu %llu", word, rest, &a, &b) < 3) return;
        char name[224];
        snprintf(name, sizeof name, "%s MIG %s", d->name, word);
        device *i = new_device(name);
        snprintf(i->uuid, sizeof i->uuid, "%s", rest);
        i->memory = 1, i->total = a << 20, i->used = b << 20;
        i->major = d->major, i->minor = d->minor;
        d->instances[d->instance_count++] = i;
    }
}

static void read_line(char *line) {
    char key[64] = "", function[64] = "";
    int code = 0, gpu = gpu_count - 1;
    if (sscanf(line, "%63s", key) != 1 || key[0] == '#') return;
    char *value = line + strlen(key);
    while (*value == ' ') value++;
    if (!strcmp(key, "driver")) snprintf(driver, sizeof driver, "%s", value);
    else if (!strcmp(key, "cuda")) cuda = atoi(value);
    else if (!strcmp(key, "gpu")) {
        if (gpu_count < GPUS) gpus[gpu_count++] = new_device(value);
    } else if (!strcmp(key, "fail")) {
        if (sscanf(value, "%63s %d", function, &code) == 2) refuse(function, gpu, code);
    } else if (!strcmp(key, "without")) refuse(value, -1, NO_FUNCTION);
    else if (!strcmp(key, "hang")) refuse(value, gpu, -1);
    else if (gpu_count) read_device_line(gpus[gpu], line);
}

static void load(void) {
    if (loaded) return;
    loaded = 1;
    const char *path = getenv("NVML_STUB_SCENARIO");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        char *end = line + strcspn(line, "\r\n");
        while (end > line && end[-1] == ' ') end--;
        *end = 0;
        char *start = line;
        while (*start == ' ' || *start == '\t') start++;
        read_line(start);
    }
    fclose(file);
}

/* The refusal that the scenario asks for, 0 for none; `all` stands for every function of a GPU. */
static int refused(const char *function, device *d) {
    load();
    for (int i = 0; i < refusal_count; i++) {
        refusal *r = &refusals[i];
        int here = r->gpu < 0 || (d && r->gpu < gpu_count && gpus[r->gpu] == d);
        if (!here || (strcmp(r->function, function) && !(d && !strcmp(r->function, "all")))) continue;
        while (r->code < 0) sleep(1000);
        return r->code;
    }
    return OK;
}

#define ENTER(device_) do { int code_ = refused(__func__, device_); if (code_) return code_; } while (0)
#define NEEDS(present_) do { if (!(present_)) return NOT_SUPPORTED; } while (0)

int nvmlInitWithFlags(uint flags) { (void)flags; ENTER(NULL); return OK; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
/* The next nvmlInit reads the scenario again: a test may change it between two looks. */
int nvmlShutdown(void) { ENTER(NULL); loaded = gpu_count = refusal_count = 0; return OK; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

static int copy(char *to, uint size, const char *from) {
    if (strlen(from) + 1 > size) return SMALL;
    strcpy(to, from);
    return OK;
}

int nvmlSystemGetDriverVersion(char *to, uint size) { ENTER(NULL); return copy(to, size, driver); }
int nvmlSystemGetNVMLVersion(char *to, uint size) { ENTER(NULL); return copy(to, size, driver); }
int nvmlSystemGetCudaDriverVersion(int *to) { ENTER(NULL); *to = cuda; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *to) { ENTER(NULL); *to = cuda; return OK; }
int nvmlDeviceGetCount_v2(uint *to) { ENTER(NULL); *to = (uint)gpu_count; return OK; }

int nvmlDeviceGetHandleByIndex_v2(uint index, device **to) {
    load();
    if (index >= (uint)gpu_count) return INVALID;
    ENTER(gpus[index]);
    *to = gpus[index];
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device **to) {
    ENTER(NULL);
    for (int i = 0; i < gpu_count; i++)
        if (!strcmp(gpus[i]->uuid, uuid)) { *to = gpus[i]; return OK; }
    return NOT_FOUND;
}

int nvmlDeviceGetIndex(device *d, uint *to) {
    ENTER(d);
    for (int i = 0; i < gpu_count; i++)
        if (gpus[i] == d) { *to = (uint)i; return OK; }
    return NOT_FOUND;
}

int nvmlDeviceGetName(device *d, char *to, uint size) { ENTER(d); return copy(to, size, d->name); }
int nvmlDeviceGetUUID(device *d, char *to, uint size) { ENTER(d); return copy(to, size, d->uuid); }

int nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    ENTER(d);
    NEEDS(d->major);
    *major = d->major, *minor = d->minor;
    return OK;
}

typedef struct { ull total, free, used; } memory_v1;
typedef struct { uint version; ull total, reserved, free, used; } memory_v2;

int nvmlDeviceGetMemoryInfo(device *d, memory_v1 *to) {
    ENTER(d);
    NEEDS(d->memory);
    to->total = d->total, to->used = d->used + d->reserved, to->free = d->total - to->used;
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *to) {
    ENTER(d);
    NEEDS(d->memory);
    if (to->version != (2u << 24 | sizeof *to)) return 25;
    to->total = d->total, to->reserved = d->reserved, to->used = d->used;
    to->free = d->total - d->used - d->reserved;
    return OK;
}

int nvmlDeviceGetEccMode(device *d, uint *now, uint *next) { ENTER(d); NEEDS(d->ecc); *now = *next = 1; return OK; }

int nvmlDeviceGetTotalEccErrors(device *d, uint kind, uint counter, ull *to) {
    ENTER(d);
    NEEDS(d->ecc);
    *to = kind == 1 && counter == 0 ? d->ecc_uncorrected : 0;
    return OK;
}

int nvmlDeviceGetRemappedRows(device *d, uint *corrected, uint *uncorrected, uint *pending, uint *failed) {
    ENTER(d);
    NEEDS(d->rows);
    *corrected = 0, *uncorrected = d->rows_pending || d->rows_failed, *pending = d->rows_pending, *failed = d->rows_failed;
    return OK;
}

int nvmlDeviceGetMigMode(device *d, uint *now, uint *next) { ENTER(d); NEEDS(d->mig); *now = *next = d->mig == 2; return OK; }
int nvmlDeviceGetMaxMigDeviceCount(device *d, uint *to) { ENTER(d); *to = d->mig ? 7 : 0; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(device *d, uint index, device **to) {
    ENTER(d);
    if (index >= (uint)d->instance_count) return NOT_FOUND;
    *to = d->instances[index];
    return OK;
}

int nvmlDeviceGetPersistenceMode(device *d, uint *to) { ENTER(d); *to = d->persistence; return OK; }
int nvmlDeviceGetComputeMode(device *d, uint *to) { ENTER(d); *to = d->compute_mode; return OK; }
int nvmlDeviceGetCurrPcieLinkGeneration(device *d, uint *to) { ENTER(d); *to = d->generation; return OK; }
int nvmlDeviceGetMaxPcieLinkGeneration(device *d, uint *to) { ENTER(d); *to = d->generation_max; return OK; }
int nvmlDeviceGetCurrPcieLinkWidth(device *d, uint *to) { ENTER(d); *to = d->width; return OK; }
int nvmlDeviceGetMaxPcieLinkWidth(device *d, uint *to) { ENTER(d); *to = d->width_max; return OK; }

int nvmlDeviceGetNvLinkState(device *d, uint link, uint *to) {
    ENTER(d);
    NEEDS(d->links);
    if (link >= 18) return INVALID;
    *to = link < d->active_links;
    return OK;
}

typedef struct { unsigned char cluster[16]; int status; uint clique; unsigned char state; } fabric_info;

int nvmlDeviceGetGpuFabricInfo(device *d, fabric_info *to) {
    ENTER(d);
    NEEDS(d->fabric);
    memset(to, 0, sizeof *to);
    to->state = (unsigned char)d->fabric_state;
    return OK;
}

/* Version 1 has the first two members only; versions 2 and 3 are alike. */
typedef struct { uint pid; ull used; uint instance, compute_instance; } process_info;

static int list(device *d, int graphics, uint *count, process_info *to) {
    uint found = 0, room = *count;
    for (int i = 0; i < d->process_count; i++) {
        if (d->processes[i].graphics != graphics) continue;
        if (to && found < room)
            to[found] = (process_info){d->processes[i].pid, d->processes[i].used, 0xFFFFFFFF, 0xFFFFFFFF};
        found++;
    }
    *count = found;
    return found > room ? SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v2(device *d, uint *n, process_info *to) { ENTER(d); return list(d, 0, n, to); }
int nvmlDeviceGetComputeRunningProcesses_v3(device *d, uint *n, process_info *to) { ENTER(d); return list(d, 0, n, to); }
int nvmlDeviceGetGraphicsRunningProcesses_v2(device *d, uint *n, process_info *to) { ENTER(d); return list(d, 1, n, to); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, uint *n, process_info *to) { ENTER(d); return list(d, 1, n, to); }
