/* One request taken apart, and the pieces of which its answer is made. */
#ifndef REPLY_H
#define REPLY_H

#include "memory.h"

#define NAME_MAX_BYTES 4096

enum kind {
    PUT_BLOB, PUT_BLOCK, PUT_BLOCK_LIST, GET_BLOCK_LIST, APPEND_BLOCK, COPY_BLOB, GET_BLOB, HEAD_BLOB, DELETE_BLOB, SET_BLOB,
    LIST_BLOBS, CONTAINER, ACCOUNT, UNKNOWN, KINDS
};

/* Which blob of which container, and what is to be done to it. */
struct call {
    const struct request *request;
    enum kind kind;
    char name[NAME_MAX_BYTES]; /* container/key, decoded */
    char *key;                 /* into name, or NULL */
    struct body *body; /* NULL when it was thrown away */
    struct answer *answer;
    struct buffer *out; /* the text of the answer */
};

/* Begin the head with what every answer has; more headers may follow until `end`. */
void begin(struct call *call, const char *status);

/* End the head and add the body, which HEAD leaves away. */
void end(struct call *call, const char *type, const char *body, size_t len);

void refuse(struct call *call, const char *status, const char *code);

/* Add the headers that say which state of which blob this is. */
void add_state(struct call *call, const struct blob *blob);

/* Answer a write that went well; `blob` gives the etag, NULL where the service gives none (staging a block). */
void accept_write(struct call *call, const char *status, const struct blob *blob);

/* Return whether the conditions of the request hold for what is there; refuses it when they do not. */
int conditions_hold(struct call *call, const struct blob *blob);

/* Answer Get Blob, a range of it too, and Get Blob Properties. */
void read_blob(struct call *call);

/* Answer List Blobs, with prefix, delimiter, marker and pages. */
void list_blobs(struct call *call);

uint64_t refused_count(void);
void forget_refused(void);

#endif
