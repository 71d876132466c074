/* The bytes of one connection, plain or encrypted; nothing here waits. */
#ifndef WIRE_H
#define WIRE_H

#include "nullserver.h"

#include <openssl/ssl.h>

#define TLS_READ_BYTES (64 << 10)

struct wire {
    int fd;
    SSL *ssl; /* NULL for plain HTTP */
    char *discarded; /* TLS_READ_BYTES of room for what is thrown away */
};

/* Read into `to`, or throw away when it is NULL; returns bytes, 0 when there are none yet, -1 at the end. */
ssize_t wire_take(struct wire *wire, char *to, size_t len);

/* Write; returns bytes, 0 when none can go out now, -1 when the connection has ended. */
ssize_t wire_give(struct wire *wire, const char *from, size_t len);

/* Write some of an answer of whose text `sent` bytes are out, and note how far it came; returns as `wire_give`. */
ssize_t wire_answer(struct wire *wire, struct answer *answer, size_t *sent);

#endif
