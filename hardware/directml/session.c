/* Runs session plans with the onnxruntime.dll and DirectML.dll that lie beside this program.
 *
 *     session.exe JOB...       each JOB a folder
 *
 * A job folder holds plan.txt (see README.md), ids.bin and mask.bin: int64 [inputs, batch, sequence]. It receives
 * vectors.bin: float32 [inputs, batch, dim], facts.txt: lines "key value", and log.txt: what ONNX Runtime logged.
 * All sessions are opened before the first one runs, and stay open until the last one has run, as in embedmill.
 * Exit code 0: every job has its vectors; 1: at least one has not, and its facts.txt says "error" and why.
 *
 * Which provider got which nodes is asked of ONNX Runtime (the plan must set session.record_ep_graph_assignment_info to
 * 1), and read from its log, where the nodes are counted once more after DirectML has fused its own into one. */
/* The header defines every other word of this kind for compilers that lack them. */
#define _Return_type_success_(condition)
#include <onnxruntime_c_api.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

enum { JOBS = 32, PAIRS = 32, OPERATORS = 256, PATH = 1024, LINE = 1024 };

struct pairs {
    char *keys[PAIRS], *values[PAIRS];
    size_t count;
};

struct job {
    const char *folder;
    FILE *facts, *log;
    /* The plan. */
    char *graph, *provider;
    int64_t batch, sequence, dim;
    int memory_pattern, threads, inputs;
    GraphOptimizationLevel optimisation;
    struct pairs configs, free_dimensions, options;
    /* What it became. */
    OrtSession *session;
    int records, left, failed;
};

static const OrtApi *api;
static const OrtApiBase *base;
static OrtEnv *environment;  /* ONNX Runtime has one per process */
static struct job *speaking; /* the job that its log is about */

static void fact(struct job *job, const char *key, const char *format, ...)
{
    va_list arguments;
    fprintf(job->facts, "%s ", key);
    va_start(arguments, format);
    vfprintf(job->facts, format, arguments);
    va_end(arguments);
    fputc('\n', job->facts);
    fflush(job->facts); /* a crash must not take them along */
}

/* Notes the first failure of a job, on one line. */
static int fail(struct job *job, const char *what, const char *why)
{
    char line[4 * LINE];
    snprintf(line, sizeof line, "%s: %s", what, why);
    for (char *at = line; *at; at++)
        if (*at == '\n' || *at == '\r')
            *at = ' ';
    if (!job->failed)
        fact(job, "error", "%s", line);
    job->failed = 1;
    return 0;
}

static int good(struct job *job, const char *what, OrtStatus *status)
{
    if (!status)
        return 1;
    fail(job, what, api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    return 0;
}

static double now(void)
{
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (double)count.QuadPart / (double)frequency.QuadPart;
}

static const char *in_folder(struct job *job, const char *name)
{
    static char path[PATH];
    snprintf(path, sizeof path, "%s\\%s", job->folder, name);
    return path;
}

/* ---- the plan ---- */

static int add_pair(struct pairs *pairs, const char *text)
{
    const char *space = strchr(text, ' ');
    if (!space || pairs->count == PAIRS)
        return 0;
    pairs->keys[pairs->count] = strdup(text);
    pairs->keys[pairs->count][space - text] = 0;
    pairs->values[pairs->count++] = strdup(space + 1);
    return 1;
}

static int read_level(const char *text, GraphOptimizationLevel *level)
{
    if (!strcmp(text, "basic"))
        *level = ORT_ENABLE_BASIC;
    else if (!strcmp(text, "extended"))
        *level = ORT_ENABLE_EXTENDED;
    else if (!strcmp(text, "all"))
        *level = ORT_ENABLE_ALL;
    else
        return 0;
    return 1;
}

static int read_line(struct job *job, const char *key, const char *value)
{
    if (!strcmp(key, "graph"))
        return (job->graph = strdup(value)) != NULL;
    if (!strcmp(key, "provider"))
        return (job->provider = strdup(value)) != NULL;
    if (!strcmp(key, "batch"))
        return (job->batch = atoll(value)) > 0;
    if (!strcmp(key, "sequence"))
        return (job->sequence = atoll(value)) > 0;
    if (!strcmp(key, "dim"))
        return (job->dim = atoll(value)) > 0;
    if (!strcmp(key, "inputs"))
        return (job->inputs = atoi(value)) > 0;
    if (!strcmp(key, "threads"))
        return (job->threads = atoi(value)) >= 0;
    if (!strcmp(key, "memory_pattern"))
        return (job->memory_pattern = atoi(value)) == 0 || job->memory_pattern == 1;
    if (!strcmp(key, "execution"))
        return !strcmp(value, "sequential");
    if (!strcmp(key, "optimisation"))
        return read_level(value, &job->optimisation);
    if (!strcmp(key, "config")) {
        job->records |= !strcmp(value, "session.record_ep_graph_assignment_info 1");
        return add_pair(&job->configs, value);
    }
    if (!strcmp(key, "free_dimension"))
        return add_pair(&job->free_dimensions, value);
    if (!strcmp(key, "option"))
        return add_pair(&job->options, value);
    return 0;
}

static int read_plan(struct job *job)
{
    char line[LINE];
    FILE *file = fopen(in_folder(job, "plan.txt"), "r");
    if (!file)
        return fail(job, "plan.txt", "cannot be opened");
    while (fgets(line, sizeof line, file) && !job->failed) {
        char *value;
        line[strcspn(line, "\r\n")] = 0;
        if (!*line)
            continue;
        value = strchr(line, ' ');
        if (value)
            *value++ = 0;
        if (!value || !read_line(job, line, value))
            fail(job, "plan.txt, a line that is not understood", line);
    }
    fclose(file);
    if (!job->failed && !(job->graph && job->batch && job->sequence && job->dim && job->inputs))
        fail(job, "plan.txt", "graph, batch, sequence, dim and inputs are required");
    return !job->failed;
}

/* ---- what ONNX Runtime says ---- */

/* "... placed on [PROVIDER]. Number of nodes: N" */
static void note_placement(struct job *job, const char *message)
{
    char name[LINE / 2], key[LINE];
    int nodes;
    const char *placed = strstr(message, "placed on [");
    if (placed && sscanf(placed, "placed on [%500[^]]]. Number of nodes: %d", name, &nodes) == 2) {
        snprintf(key, sizeof key, "nodes.%s", name);
        fact(job, key, "%d", nodes);
    }
}

static void ORT_API_CALL note(void *data, OrtLoggingLevel level, const char *category, const char *id,
                              const char *location, const char *message)
{
    if (!speaking)
        return;
    fprintf(speaking->log, "%d %s %s\n", level, location, message);
    note_placement(speaking, message);
}

/* The path and the version of a library that is loaded. */
static void note_library(struct job *job, const char *name)
{
    char path[PATH], key[LINE];
    static char data[65536];
    VS_FIXEDFILEINFO *info;
    UINT size;
    HMODULE module = GetModuleHandleA(name);
    if (!module || !GetModuleFileNameA(module, path, sizeof path)) {
        fact(job, name, "not loaded");
        return;
    }
    fact(job, name, "%s", path);
    if (!GetFileVersionInfoA(path, 0, sizeof data, data) || !VerQueryValueA(data, "\\", (void **)&info, &size))
        return;
    snprintf(key, sizeof key, "%s.version", name);
    fact(job, key, "%u.%u.%u.%u", HIWORD(info->dwFileVersionMS), LOWORD(info->dwFileVersionMS),
         HIWORD(info->dwFileVersionLS), LOWORD(info->dwFileVersionLS));
}

/* The functions that say who got which node came with version 24 of the API; Debian's header is older. The table only
 * grows at its end and its order is fixed, so these are their places in it from version 24 on. */
enum { ASSIGNMENT_VERSION = 24 };
enum { SUBGRAPHS = 407, SUBGRAPH_PROVIDER, SUBGRAPH_NODES, NODE_NAME, NODE_DOMAIN, NODE_OPERATOR };
typedef OrtStatus *(ORT_API_CALL *get_string)(const void *of, const char **string);
typedef OrtStatus *(ORT_API_CALL *get_array)(const void *of, const void *const **items, size_t *count);

struct tally {
    char names[OPERATORS][LINE / 4];
    int counts[OPERATORS];
    int used;
};

static void add_to(struct tally *tally, const char *provider, const char *domain, const char *operator)
{
    char name[LINE / 4];
    int at = 0;
    snprintf(name, sizeof name, "assigned.%s.%s%s%s", provider, domain, *domain ? "." : "", operator);
    while (at < tally->used && strcmp(tally->names[at], name))
        at++;
    if (at == OPERATORS)
        return;
    if (at == tally->used)
        strcpy(tally->names[tally->used++], name);
    tally->counts[at]++;
}

static int note_node(struct job *job, void *const *table, struct tally *tally, const char *provider, const void *node)
{
    const char *name, *domain, *operator;
    char key[32];
    if (!good(job, "node", ((get_string)table[NODE_NAME])(node, &name)) ||
        !good(job, "node", ((get_string)table[NODE_DOMAIN])(node, &domain)) ||
        !good(job, "node", ((get_string)table[NODE_OPERATOR])(node, &operator)))
        return 0;
    add_to(tally, provider, domain, operator);
    if (job->provider && strcmp(provider, "DmlExecutionProvider")) {
        snprintf(key, sizeof key, "left.%d", job->left++);
        fact(job, key, "%s %s on %s", operator, name, provider);
    }
    return 1;
}

/* Facts "assigned.PROVIDER.OPERATOR N", before DirectML fuses its nodes, and "left.N OPERATOR NAME on PROVIDER" for
 * each node of another provider. */
static void note_assignment(struct job *job)
{
    static struct tally tally;
    void *const *table = (void *const *)base->GetApi(ASSIGNMENT_VERSION);
    const void *const *subgraphs, *const *nodes;
    const char *provider;
    size_t count, size;
    if (!table || !good(job, "assignment", ((get_array)table[SUBGRAPHS])(job->session, &subgraphs, &count)))
        return;
    memset(&tally, 0, sizeof tally);
    for (size_t i = 0; i < count; i++) {
        if (!good(job, "assignment", ((get_string)table[SUBGRAPH_PROVIDER])(subgraphs[i], &provider)) ||
            !good(job, "assignment", ((get_array)table[SUBGRAPH_NODES])(subgraphs[i], &nodes, &size)))
            return;
        for (size_t j = 0; j < size; j++)
            if (!note_node(job, table, &tally, provider, nodes[j]))
                return;
    }
    for (int i = 0; i < tally.used; i++)
        fact(job, tally.names[i], "%d", tally.counts[i]);
}

/* ---- opening ---- */

static int set_options(struct job *job, OrtSessionOptions *options)
{
    int set = good(job, "execution mode", api->SetSessionExecutionMode(options, ORT_SEQUENTIAL)) &&
              good(job, "memory pattern",
                   job->memory_pattern ? api->EnableMemPattern(options) : api->DisableMemPattern(options)) &&
              good(job, "optimisation", api->SetSessionGraphOptimizationLevel(options, job->optimisation)) &&
              good(job, "threads", api->SetIntraOpNumThreads(options, job->threads));
    for (size_t i = 0; set && i < job->configs.count; i++)
        set = good(job, job->configs.keys[i],
                   api->AddSessionConfigEntry(options, job->configs.keys[i], job->configs.values[i]));
    for (size_t i = 0; set && i < job->free_dimensions.count; i++)
        set = good(job, job->free_dimensions.keys[i],
                   api->AddFreeDimensionOverrideByName(options, job->free_dimensions.keys[i],
                                                       atoll(job->free_dimensions.values[i])));
    if (set && job->provider)
        set = good(job, "provider",
                   api->SessionOptionsAppendExecutionProvider(options, job->provider,
                                                              (const char *const *)job->options.keys,
                                                              (const char *const *)job->options.values,
                                                              job->options.count));
    return set;
}

static int open_session(struct job *job)
{
    wchar_t path[PATH];
    OrtSessionOptions *options = NULL;
    double started = now();
    MultiByteToWideChar(CP_UTF8, 0, in_folder(job, job->graph), -1, path, PATH);
    speaking = job;
    if ((environment ||
         good(job, "environment",
              api->CreateEnvWithCustomLogger(note, NULL, ORT_LOGGING_LEVEL_VERBOSE, "embedmill", &environment))) &&
        good(job, "session options", api->CreateSessionOptions(&options)) && set_options(job, options))
        good(job, "session", api->CreateSession(environment, path, options, &job->session));
    if (options)
        api->ReleaseSessionOptions(options);
    fact(job, "create_s", "%.3f", now() - started);
    fact(job, "onnxruntime", "%s", base->GetVersionString());
    if (job->session && job->records)
        note_assignment(job);
    note_library(job, "onnxruntime.dll");
    note_library(job, "DirectML.dll");
    return !job->failed;
}

/* ---- running ---- */

static int64_t *read_numbers(struct job *job, const char *name)
{
    size_t count = job->inputs * job->batch * job->sequence;
    int64_t *numbers = malloc(count * sizeof *numbers);
    FILE *file = fopen(in_folder(job, name), "rb");
    if (!numbers || !file || fread(numbers, sizeof *numbers, count, file) != count || fgetc(file) != EOF) {
        fail(job, name, "is not int64 [inputs, batch, sequence]");
        free(numbers);
        numbers = NULL;
    }
    if (file)
        fclose(file);
    return numbers;
}

/* Appends the vectors of one batch, if they have the type and shape of the plan. */
static int keep(struct job *job, const OrtValue *output, FILE *vectors)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type;
    int64_t shape[2] = {0};
    size_t rank = 0, count = job->batch * job->dim;
    void *data;
    int fits = good(job, "output", api->GetTensorTypeAndShape(output, &info)) &&
               good(job, "output type", api->GetTensorElementType(info, &type)) &&
               good(job, "output rank", api->GetDimensionsCount(info, &rank)) && rank == 2 &&
               good(job, "output shape", api->GetDimensions(info, shape, 2)) &&
               type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT && shape[0] == job->batch && shape[1] == job->dim;
    if (info)
        api->ReleaseTensorTypeAndShapeInfo(info);
    if (!fits)
        return fail(job, "output", "is not float32 [batch, dim]");
    if (!good(job, "output data", api->GetTensorMutableData((OrtValue *)output, &data)))
        return 0;
    return fwrite(data, sizeof(float), count, vectors) == count || fail(job, "vectors.bin", "cannot be written");
}

static int run_batch(struct job *job, int number, int64_t *ids, int64_t *mask, const char *output_name, FILE *vectors)
{
    const char *names[2] = {"input_ids", "attention_mask"};
    const int64_t shape[2] = {job->batch, job->sequence};
    const size_t count = job->batch * job->sequence, bytes = count * sizeof *ids;
    const ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    OrtMemoryInfo *memory = NULL;
    OrtValue *inputs[2] = {NULL, NULL}, *output = NULL;
    char key[32];
    int done = good(job, "memory", api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory)) &&
               good(job, names[0],
                    api->CreateTensorWithDataAsOrtValue(memory, ids + number * count, bytes, shape, 2, type,
                                                        &inputs[0])) &&
               good(job, names[1],
                    api->CreateTensorWithDataAsOrtValue(memory, mask + number * count, bytes, shape, 2, type,
                                                        &inputs[1]));
    if (done) {
        double started = now();
        done = good(job, "run",
                    api->Run(job->session, NULL, names, (const OrtValue *const *)inputs, 2, &output_name, 1, &output));
        snprintf(key, sizeof key, "run_s.%d", number);
        fact(job, key, "%.3f", now() - started);
    }
    done = done && keep(job, output, vectors);
    for (int i = 0; i < 2; i++)
        if (inputs[i])
            api->ReleaseValue(inputs[i]);
    if (output)
        api->ReleaseValue(output);
    if (memory)
        api->ReleaseMemoryInfo(memory);
    return done;
}

static void run_session(struct job *job)
{
    int64_t *ids = read_numbers(job, "ids.bin"), *mask = read_numbers(job, "mask.bin");
    FILE *vectors = fopen(in_folder(job, "vectors.bin"), "wb");
    OrtAllocator *allocator;
    char *output = NULL;
    speaking = job;
    if (!vectors)
        fail(job, "vectors.bin", "cannot be opened");
    if (ids && mask && vectors && good(job, "allocator", api->GetAllocatorWithDefaultOptions(&allocator)) &&
        good(job, "output name", api->SessionGetOutputName(job->session, 0, allocator, &output)))
        for (int i = 0; i < job->inputs && run_batch(job, i, ids, mask, output, vectors); i++)
            ;
    if (output)
        good(job, "allocator", api->AllocatorFree(allocator, output));
    if (vectors && fclose(vectors))
        fail(job, "vectors.bin", "cannot be written");
    free(ids);
    free(mask);
}

/* ---- the program ---- */

static int load_runtime(void)
{
    /* The program's own folder comes first in Windows' search. */
    HMODULE library = LoadLibraryA("onnxruntime.dll");
    const OrtApiBase *(ORT_API_CALL * get_base)(void);
    if (!library) {
        fprintf(stderr, "onnxruntime.dll cannot be loaded: error %lu\n", GetLastError());
        return 0;
    }
    get_base = (void *)GetProcAddress(library, "OrtGetApiBase");
    base = get_base ? get_base() : NULL;
    /* The header's version or any later one: the table of functions only grows at its end. */
    api = base ? base->GetApi(ORT_API_VERSION) : NULL;
    if (!api) {
        fprintf(stderr, "onnxruntime.dll has no API version %d\n", ORT_API_VERSION);
        return 0;
    }
    return 1;
}

static int begin(struct job *job, const char *folder)
{
    job->folder = folder;
    job->optimisation = ORT_ENABLE_ALL;
    job->facts = fopen(in_folder(job, "facts.txt"), "w");
    job->log = fopen(in_folder(job, "log.txt"), "w");
    if (!job->facts || !job->log) {
        fprintf(stderr, "%s: facts.txt and log.txt cannot be written\n", folder);
        return 0;
    }
    return 1;
}

static void end(struct job *job)
{
    speaking = job;
    if (job->session)
        api->ReleaseSession(job->session);
    speaking = NULL;
    if (job->failed)
        remove(in_folder(job, "vectors.bin"));
    fact(job, "done", "%d", !job->failed);
    fclose(job->log);
    fclose(job->facts);
}

int main(int count, char **arguments)
{
    static struct job jobs[JOBS];
    int failed = 0;
    if (count < 2 || count - 1 > JOBS) {
        fprintf(stderr, "usage: session.exe JOB... (at most %d)\n", JOBS);
        return 2;
    }
    count--;
    if (!load_runtime())
        return 2;
    for (int i = 0; i < count; i++)
        if (!begin(&jobs[i], arguments[i + 1]))
            return 2;
    for (int i = 0; i < count; i++)
        if (read_plan(&jobs[i]))
            open_session(&jobs[i]);
    for (int i = 0; i < count; i++)
        if (!jobs[i].failed)
            run_session(&jobs[i]);
    for (int i = 0; i < count; i++) {
        end(&jobs[i]);
        failed |= jobs[i].failed;
    }
    if (environment)
        api->ReleaseEnv(environment);
    return failed;
}
