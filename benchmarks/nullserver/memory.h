/* What the server remembers of blobs: names, sizes, metadata, blocks, and bodies where it keeps them. Every call is made under the
 * one lock. */
#ifndef MEMORY_H
#define MEMORY_H

#include "nullserver.h"

struct block {
    char *id;
    size_t size;
    struct body *body; /* NULL when it was thrown away */
    struct block *next;
};

struct blocks {
    struct block *first, *last, *hint; /* `hint`: where the last search ended; lists are read in the order they were staged */
};

struct blob {
    struct blob *next;
    char *name; /* container/key, decoded */
    int is_committed;
    size_t size;
    uint64_t etag;
    time_t created, modified;
    char *metadata; /* "name:value\n" for each */
    struct content *content; /* NULL when it was thrown away, or is empty */
    struct blocks staged, committed;
};

/* Return the block of this id, NULL when there is none. */
struct block *blocks_find(struct blocks *blocks, const char *id, size_t len);
void blocks_add(struct blocks *blocks, const char *id, size_t len, size_t size, struct body *body);
void blocks_free(struct blocks *blocks);

/* Return where the blob of this name is or would be linked. */
struct blob **slot_of(const char *name);
struct blob *find_committed(const char *name);
struct blob *find_or_add(const char *name);
void forget(struct blob **slot);
void forget_all(void);

/* Make the blob visible with the request's metadata; it takes over the content. */
void commit(struct blob *blob, const struct request *request, size_t size, struct content *content);

/* Return the committed blobs of a container whose key begins with `prefix`, sorted by name; to be freed by the caller. */
struct blob **find_listed(const char *container, const char *prefix, size_t *count);

size_t count_blobs(void);
uint64_t next_etag(void);

#endif
