/* What the server remembers of blobs; see memory.h. */
#define _GNU_SOURCE
#include "memory.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS (1u << 17)

static struct blob *buckets[BUCKETS];
static size_t blob_count;
static uint64_t etags;

struct block *blocks_find(struct blocks *blocks, const char *id, size_t len) {
    struct block *from = blocks->hint ? blocks->hint : blocks->first, *block = from;
    if (block == NULL) return NULL;
    do {
        if (strncmp(block->id, id, len) == 0 && block->id[len] == 0) {
            blocks->hint = block->next;
            return block;
        }
        block = block->next ? block->next : blocks->first;
    } while (block != from);
    return NULL;
}

void blocks_add(struct blocks *blocks, const char *id, size_t len, size_t size, struct body *body) {
    struct block *block = calloc(1, sizeof *block);
    block->id = strndup(id, len);
    block->size = size;
    block->body = body_hold(body);
    if (blocks->last) blocks->last->next = block;
    else blocks->first = block;
    blocks->last = block;
}

void blocks_free(struct blocks *blocks) {
    for (struct block *block = blocks->first, *next; block; block = next) {
        next = block->next;
        body_drop(block->body);
        free(block->id);
        free(block);
    }
    *blocks = (struct blocks){0};
}

struct blob **slot_of(const char *name) {
    uint64_t hash = 14695981039346656037u;
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    struct blob **slot = &buckets[(hash ^ (hash >> 32)) & (BUCKETS - 1)];
    while (*slot && strcmp((*slot)->name, name) != 0) slot = &(*slot)->next;
    return slot;
}

struct blob *find_committed(const char *name) {
    struct blob *blob = *slot_of(name);
    return blob && blob->is_committed ? blob : NULL;
}

struct blob *find_or_add(const char *name) {
    struct blob **slot = slot_of(name);
    if (*slot == NULL) {
        *slot = calloc(1, sizeof **slot);
        (*slot)->name = strdup(name);
        blob_count++;
    }
    return *slot;
}

void forget(struct blob **slot) {
    struct blob *blob = *slot;
    *slot = blob->next;
    blocks_free(&blob->staged);
    blocks_free(&blob->committed);
    free(blob->name);
    free(blob->metadata);
    content_drop(blob->content);
    free(blob);
    blob_count--;
}

void commit(struct blob *blob, const struct request *request, size_t size, struct content *content) {
    struct buffer metadata = {0};
    for (int i = 0; i < request->metadata_count; i++) {
        buffer_add(&metadata, request->metadata[i][0].at, request->metadata[i][0].len);
        buffer_add(&metadata, ":", 1);
        buffer_add(&metadata, request->metadata[i][1].at, request->metadata[i][1].len);
        buffer_add(&metadata, "\n", 1);
    }
    if (metadata.len) buffer_add(&metadata, "", 1);
    free(blob->metadata);
    content_drop(blob->content);
    blob->metadata = metadata.data;
    blob->content = content;
    blob->size = size;
    blob->modified = time(NULL);
    if (!blob->is_committed) blob->created = blob->modified;
    blob->is_committed = 1;
    blob->etag = ++etags;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(struct blob *const *)a)->name, (*(struct blob *const *)b)->name);
}

struct blob **find_listed(const char *container, const char *prefix, size_t *count_out) {
    struct blob **found = malloc((blob_count + 1) * sizeof *found);
    size_t container_len = strlen(container), prefix_len = strlen(prefix), count = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct blob *blob = buckets[i]; blob; blob = blob->next)
            if (blob->is_committed && strncmp(blob->name, container, container_len) == 0 && blob->name[container_len] == '/' &&
                strncmp(blob->name + container_len + 1, prefix, prefix_len) == 0)
                found[count++] = blob;
    qsort(found, count, sizeof *found, by_name);
    *count_out = count;
    return found;
}

void forget_all(void) {
    for (size_t i = 0; i < BUCKETS; i++)
        while (buckets[i]) forget(&buckets[i]);
}

size_t count_blobs(void) { return blob_count; }

uint64_t next_etag(void) { return ++etags; }
