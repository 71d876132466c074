/* What the parts of the null blob server share: nullserver.c and wire.c speak HTTP, service.c knows what a blob service answers. */
#ifndef NULLSERVER_H
#define NULLSERVER_H

#include "bodies.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define METADATA_MAX 64

struct span {
    const char *at;
    size_t len;
};

enum method { METHOD_GET, METHOD_HEAD, METHOD_PUT, METHOD_DELETE, METHOD_POST, METHOD_OTHER };

/* One request; every span points into the connection's buffer, which stays where it is until the answer is made. */
struct request {
    enum method method;
    struct span target, query; /* both still percent-encoded, the target without its query */
    struct span if_none_match, if_match, range, copy_source, client_request_id, version, content_md5, content_crc64;
    struct span metadata[METADATA_MAX][2];
    int metadata_count;
    size_t body_len;
    int wants_continue, wants_close, is_chunked;
};

/* Bytes that grow; `cap` is 0 before the first use. */
struct buffer {
    char *data;
    size_t len, cap;
};

/* What is to be sent: `text`, then the bytes of `content` from `begin` to `end`; it is held for the answer, NULL for none. */
struct answer {
    struct buffer text;
    struct content *content;
    size_t begin, end;
};

void buffer_add(struct buffer *buffer, const char *data, size_t len);
void buffer_print(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Return whether `span` equals `text`, ASCII letters of either case counted as the same. */
int span_is(struct span span, const char *text);

/* Append `text` with &, < and > escaped. */
void add_xml(struct buffer *out, const char *text, size_t len);

/* Decode percents into `out`, cut to its size and ended with a null; returns the length. */
size_t decode(struct span in, char *out, size_t out_max);

/* Copy the decoded value of a query parameter to `out`; 0 when it is not there. */
int query_value(struct span query, const char *name, char *out, size_t out_max);

/* Write a time as HTTP has it. */
void http_date(time_t when, char *out, size_t out_max);

/* Parse the head at `in`: its length when it is whole, 0 when more must come, -1 when it is none. */
long parse_head(const char *in, size_t in_len, struct request *request);

/* Return how many bytes of the body the answer depends on: 0 when the whole of it may be thrown away as it arrives. */
size_t service_keeps_body(const struct request *request);

/* Make the whole answer, head and body; `body` (NULL: thrown away) may be kept. Safe from any thread. Returns 1 for what is
 * answered without the latency. */
int service_answer(const struct request *request, struct body *body, struct answer *answer);

/* From now on keep the bodies of all blobs. */
void service_keeps_all(void);

void service_counts_connection(void);

/* Note that the last byte of a blob was handed to the kernel. */
void service_sent(void);

#endif
