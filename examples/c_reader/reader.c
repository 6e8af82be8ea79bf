/* Prints the version of a running instance and takes a consistent copy of its weights.
 *
 * Written from docs/shared-memory.md alone. It attaches read-only, waits for nobody and disturbs nobody.
 *
 *   cc -O2 -o reader reader.c
 *   ./reader [INSTANCE [OUTPUT.safetensors]]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { /* offsets from the tables of docs/shared-memory.md */
    MAGIC_AT = 0,
    LAYOUT_VERSION_AT = 8,
    SEGMENT_BYTES_AT = 16,
    SLOTS_FIELD_AT = 64,
    WEIGHTS_BYTES_AT = 112,
    WEIGHTS_OFFSET_AT = 120,
    VERSION_AT = 192,
    SLOT_TABLE_AT = 4096,
    SLOT_STRIDE = 64,
    SEQUENCE_AT = 0,
    CHECKSUM_AT = 8
};

#define MAGIC UINT64_C(0x01004D45444E4154)
#define LAYOUT_VERSION 6
#define TRIES 1000

static const char *folder(void) {
    const char *name = getenv("TANDEM_SHM");
    return name ? name : "/dev/shm";
}

/* Maps a whole segment for reading; its size goes to *size. Ends the program if it is not there. */
static const unsigned char *map(const char *instance, const char *part, size_t *size) {
    char path[512];
    struct stat facts;
    snprintf(path, sizeof path, "%s/tandem.%s.%s", folder(), instance, part);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &facts) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    *size = (size_t)facts.st_size;
    void *memory = *size ? mmap(NULL, *size, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
    if (memory == MAP_FAILED) {
        fprintf(stderr, "%s: cannot be mapped (%zu bytes)\n", path, *size);
        exit(1);
    }
    close(file);
    return memory;
}

/* One aligned word, loaded whole, before everything that follows. */
static uint64_t load(const unsigned char *memory, size_t at) {
    return atomic_load_explicit((const _Atomic uint64_t *)(memory + at), memory_order_acquire);
}

static uint64_t checksum(const unsigned char *data, size_t length) {
    uint64_t sum = 0, word;
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, data + at, 8);
        sum ^= word;
    }
    word = 0;
    memcpy(&word, data + at, length - at);
    return sum ^ word;
}

int main(int count, char **arguments) {
    const char *instance = count > 1 ? arguments[1] : "default";
    size_t control_size, slot_size;
    const unsigned char *control = map(instance, "control", &control_size);
    if (control_size < 4096 || load(control, MAGIC_AT) != MAGIC) {
        fprintf(stderr, "%s: not complete, or not a control segment\n", instance);
        return 1;
    }
    if (load(control, LAYOUT_VERSION_AT) != LAYOUT_VERSION || load(control, SEGMENT_BYTES_AT) != control_size) {
        fprintf(stderr, "%s: another layout than the one this program knows\n", instance);
        return 1;
    }
    uint64_t slots = load(control, SLOTS_FIELD_AT), offset = load(control, WEIGHTS_OFFSET_AT);
    size_t length = load(control, WEIGHTS_BYTES_AT) - offset;
    unsigned char *copy = malloc(length ? length : 1);

    for (int attempt = 0; attempt < TRIES; attempt++) {
        uint64_t version = load(control, VERSION_AT);
        uint64_t index = 0; /* of the slot that holds this version; of any if none does any more */
        while (index + 1 < slots && load(control, SLOT_TABLE_AT + SLOT_STRIDE * index + SEQUENCE_AT) != 2 * version)
            index++;
        size_t entry = SLOT_TABLE_AT + SLOT_STRIDE * (size_t)index;
        char part[32];
        snprintf(part, sizeof part, "weights%llu", (unsigned long long)index);
        const unsigned char *slot = map(instance, part, &slot_size);
        if (slot_size != offset + length) {
            fprintf(stderr, "%s: has another size than the control segment says\n", part);
            return 1;
        }
        int whole = load(control, entry + SEQUENCE_AT) == 2 * version;
        if (whole) {
            uint64_t expected = load(control, entry + CHECKSUM_AT);
            memcpy(copy, slot + offset, length);
            atomic_thread_fence(memory_order_acquire);
            whole = load(control, entry + SEQUENCE_AT) == 2 * version && checksum(copy, length) == expected;
        }
        if (whole) {
            printf("version %llu\n", (unsigned long long)version);
            printf("weights %zu bytes, checksum %016llx, tries %d\n", length,
                   (unsigned long long)checksum(copy, length), attempt + 1);
            if (count > 2) {
                FILE *out = fopen(arguments[2], "wb");
                if (!out || fwrite(slot, 1, offset, out) != offset || fwrite(copy, 1, length, out) != length ||
                    fclose(out) != 0) {
                    fprintf(stderr, "%s: %s\n", arguments[2], strerror(errno));
                    return 1;
                }
            }
            return 0;
        }
        munmap((void *)slot, slot_size);
        nanosleep(&(struct timespec){0, 100000}, NULL); /* overtaken: a newer version is there in a moment */
    }
    fprintf(stderr, "%s: no version could be taken in %d tries\n", instance, TRIES);
    return 1;
}
