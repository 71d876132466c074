/* The head of a request: the first line, and the headers that some answer depends on. */
#define _GNU_SOURCE
#include "nullserver.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void keep_header(struct request *r, struct span name, struct span value) {
    static const struct {
        const char *name;
        size_t offset;
    } KNOWN[] = {
        {"if-none-match", offsetof(struct request, if_none_match)},
        {"if-match", offsetof(struct request, if_match)},
        {"range", offsetof(struct request, range)},
        {"x-ms-range", offsetof(struct request, range)},
        {"x-ms-copy-source", offsetof(struct request, copy_source)},
        {"x-ms-client-request-id", offsetof(struct request, client_request_id)},
        {"x-ms-version", offsetof(struct request, version)},
        {"content-md5", offsetof(struct request, content_md5)},
        {"x-ms-content-crc64", offsetof(struct request, content_crc64)},
    };
    if (name.len > 10 && strncasecmp(name.at, "x-ms-meta-", 10) == 0) {
        if (r->metadata_count < METADATA_MAX) {
            r->metadata[r->metadata_count][0] = (struct span){name.at + 10, name.len - 10};
            r->metadata[r->metadata_count++][1] = value;
        }
        return;
    }
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (span_is(name, KNOWN[i].name)) {
            *(struct span *)((char *)r + KNOWN[i].offset) = value;
            return;
        }
    if (span_is(name, "content-length")) r->body_len = strtoull(value.at, NULL, 10);
    else if (span_is(name, "expect")) r->wants_continue = 1;
    else if (span_is(name, "transfer-encoding")) r->is_chunked = 1;
    else if (span_is(name, "connection")) r->wants_close = span_is(value, "close");
}

static int parse_first_line(struct request *r, const char *line, const char *stop) {
    static const char *const METHODS[] = {"GET", "HEAD", "PUT", "DELETE", "POST"};
    const char *space = memchr(line, ' ', (size_t)(stop - line));
    const char *last = space ? memchr(space + 1, ' ', (size_t)(stop - space - 1)) : NULL;
    if (last == NULL) return 0;
    r->method = METHOD_OTHER;
    for (int i = 0; i < METHOD_OTHER; i++)
        if (span_is((struct span){line, (size_t)(space - line)}, METHODS[i])) r->method = (enum method)i;
    const char *query = memchr(space + 1, '?', (size_t)(last - space - 1));
    r->target = (struct span){space + 1, (size_t)((query ? query : last) - space - 1)};
    if (query) r->query = (struct span){query + 1, (size_t)(last - query - 1)};
    return 1;
}

long parse_head(const char *in, size_t in_len, struct request *r) {
    const char *end = memmem(in, in_len, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    memset(r, 0, offsetof(struct request, metadata));
    r->metadata_count = r->wants_continue = r->wants_close = r->is_chunked = 0;
    r->body_len = 0;
    size_t head_len = (size_t)(end - in) + 4;
    const char *line = memchr(in, '\r', head_len);
    if (!parse_first_line(r, in, line)) return -1;
    for (line += 2; line < end + 2;) {
        const char *stop = memchr(line, '\r', (size_t)(end + 4 - line));
        const char *colon = memchr(line, ':', (size_t)(stop - line));
        if (colon) {
            const char *value = colon + 1;
            while (value < stop && *value == ' ') value++;
            keep_header(r, (struct span){line, (size_t)(colon - line)}, (struct span){value, (size_t)(stop - value)});
        }
        line = stop + 2;
    }
    return (long)head_len;
}
