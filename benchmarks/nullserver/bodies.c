/* Bytes that the server keeps; see bodies.h. */
#include "bodies.h"

#include <stdlib.h>

struct body *body_make(size_t len) {
    struct body *body = malloc(sizeof *body + len + 1);
    if (body == NULL) abort();
    body->holders = 1;
    body->len = len;
    body->data[len] = 0;
    return body;
}

struct body *body_hold(struct body *body) {
    if (body) __atomic_fetch_add(&body->holders, 1, __ATOMIC_RELAXED);
    return body;
}

void body_drop(struct body *body) {
    if (body && __atomic_sub_fetch(&body->holders, 1, __ATOMIC_ACQ_REL) == 0) free(body);
}

struct content *content_make(struct body *const *bodies, size_t count) {
    struct content *content = malloc(sizeof *content + count * sizeof *content->pieces);
    if (content == NULL) abort();
    *content = (struct content){.holders = 1, .size = 0, .count = count};
    for (size_t i = 0; i < count; i++) {
        content->pieces[i] = (struct piece){content->size, body_hold(bodies[i])};
        content->size += bodies[i]->len;
    }
    return content;
}

struct content *content_hold(struct content *content) {
    if (content) __atomic_fetch_add(&content->holders, 1, __ATOMIC_RELAXED);
    return content;
}

void content_drop(struct content *content) {
    if (content == NULL || __atomic_sub_fetch(&content->holders, 1, __ATOMIC_ACQ_REL)) return;
    for (size_t i = 0; i < content->count; i++) body_drop(content->pieces[i].body);
    free(content);
}

struct slice content_slice(const struct content *content, size_t offset, size_t len) {
    size_t low = 0, high = content->count; /* the last piece that begins at or before `offset` */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (content->pieces[middle].begin <= offset) low = middle;
        else high = middle;
    }
    const struct body *body = content->pieces[low].body;
    size_t skip = offset - content->pieces[low].begin, left = body->len - skip;
    return (struct slice){body->data + skip, len < left ? len : left};
}
