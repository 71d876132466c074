/* Bytes that the server keeps: shared by reference, never changed once they are whole. Safe from any thread. */
#ifndef BODIES_H
#define BODIES_H

#include <stddef.h>

/* One body as it came. */
struct body {
    int holders;
    size_t len;
    char data[]; /* and a null byte */
};

/* The bytes of a blob: bodies one after the other. */
struct content {
    int holders;
    size_t size, count;
    struct piece {
        size_t begin; /* in the blob */
        struct body *body;
    } pieces[];
};

/* What of it is in one piece from some offset on. */
struct slice {
    const char *data;
    size_t len;
};

/* Return room for a body, held once, that its maker fills. */
struct body *body_make(size_t len);
struct body *body_hold(struct body *body); /* NULL is passed through, as by the two below */
void body_drop(struct body *body);

/* Return content of these bodies, held once; it holds each of them. */
struct content *content_make(struct body *const *bodies, size_t count);
struct content *content_hold(struct content *content);
void content_drop(struct content *content);

/* Return the bytes from `offset` on, at most `len`, as far as one piece goes. */
struct slice content_slice(const struct content *content, size_t offset, size_t len);

#endif
