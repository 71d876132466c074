/* Bytes that grow, and the encodings of the protocol: percent, XML, the query of a url, HTTP's dates. */
#define _GNU_SOURCE
#include "nullserver.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void buffer_add(struct buffer *buffer, const char *data, size_t len) {
    if (buffer->len + len > buffer->cap) {
        buffer->cap = (buffer->len + len) * 2 + 512;
        buffer->data = realloc(buffer->data, buffer->cap);
        if (buffer->data == NULL) abort();
    }
    memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
}

void buffer_print(struct buffer *buffer, const char *format, ...) {
    char text[8192];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (len > 0) buffer_add(buffer, text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1);
}

int span_is(struct span span, const char *text) {
    return span.at != NULL && strlen(text) == span.len && strncasecmp(span.at, text, span.len) == 0;
}

void add_xml(struct buffer *out, const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        const char *escape = text[i] == '&' ? "&amp;" : text[i] == '<' ? "&lt;" : text[i] == '>' ? "&gt;" : NULL;
        if (escape) buffer_add(out, escape, strlen(escape));
        else buffer_add(out, text + i, 1);
    }
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t decode(struct span in, char *out, size_t out_max) {
    size_t len = 0;
    for (size_t i = 0; i < in.len && len + 1 < out_max; i++) {
        if (in.at[i] == '%' && i + 2 < in.len && hex(in.at[i + 1]) >= 0 && hex(in.at[i + 2]) >= 0) {
            out[len++] = (char)(hex(in.at[i + 1]) * 16 + hex(in.at[i + 2]));
            i += 2;
        } else {
            out[len++] = in.at[i];
        }
    }
    out[len] = 0;
    return len;
}

int query_value(struct span query, const char *name, char *out, size_t out_max) {
    size_t name_len = strlen(name);
    const char *at = query.at, *end = query.at + query.len;
    out[0] = 0;
    while (at < end) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        if (stop == NULL) stop = end;
        if ((size_t)(stop - at) > name_len && at[name_len] == '=' && memcmp(at, name, name_len) == 0) {
            decode((struct span){at + name_len + 1, (size_t)(stop - at) - name_len - 1}, out, out_max);
            return 1;
        }
        at = stop + 1;
    }
    return 0;
}

void http_date(time_t when, char *out, size_t out_max) {
    static _Thread_local time_t last;
    static _Thread_local char text[40];
    if (when != last) {
        struct tm parts;
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&when, &parts));
        last = when;
    }
    snprintf(out, out_max, "%s", text);
}
