/* The pieces of which answers are made; see reply.h. */
#define _GNU_SOURCE
#include "reply.h"

#include <stdio.h>
#include <string.h>

static uint64_t refused;

void begin(struct call *call, const char *status) {
    static _Thread_local uint64_t number;
    const struct request *request = call->request;
    char date[40];
    http_date(time(NULL), date, sizeof date);
    int has_version = request->version.at != NULL && request->version.len < 32;
    buffer_print(call->out, "HTTP/1.1 %s\r\nServer: null\r\nDate: %s\r\nx-ms-request-id: 00000000-0000-4000-8000-%012llx\r\n"
                 "x-ms-version: %.*s\r\n", status, date, (unsigned long long)(number++ & 0xffffffffffffu),
                 has_version ? (int)request->version.len : 10, has_version ? request->version.at : "2021-12-02");
    if (request->client_request_id.at && request->client_request_id.len < 200)
        buffer_print(call->out, "x-ms-client-request-id: %.*s\r\n", (int)request->client_request_id.len,
                     request->client_request_id.at);
    if (request->wants_close) buffer_print(call->out, "Connection: close\r\n");
}

void end(struct call *call, const char *type, const char *body, size_t len) {
    if (type) buffer_print(call->out, "Content-Type: %s\r\n", type);
    buffer_print(call->out, "Content-Length: %zu\r\n\r\n", len);
    if (body && call->request->method != METHOD_HEAD) buffer_add(call->out, body, len);
}

void refuse(struct call *call, const char *status, const char *code) {
    char body[512];
    int len = snprintf(body, sizeof body, "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>%s</Code>"
                       "<Message>The null server says %s.</Message></Error>", code, code);
    refused++;
    begin(call, status);
    buffer_print(call->out, "x-ms-error-code: %s\r\n", code);
    int is_head = call->request->method == METHOD_HEAD;
    end(call, is_head ? NULL : "application/xml", is_head ? NULL : body, is_head ? 0 : (size_t)len);
}

void add_state(struct call *call, const struct blob *blob) {
    char date[40];
    http_date(blob->modified, date, sizeof date);
    buffer_print(call->out, "ETag: \"0x%016llX\"\r\nLast-Modified: %s\r\n", (unsigned long long)blob->etag, date);
}

void accept_write(struct call *call, const char *status, const struct blob *blob) {
    const struct request *request = call->request;
    begin(call, status);
    buffer_print(call->out, "x-ms-request-server-encrypted: true\r\n");
    if (request->content_md5.at)
        buffer_print(call->out, "Content-MD5: %.*s\r\n", (int)request->content_md5.len, request->content_md5.at);
    if (request->content_crc64.at)
        buffer_print(call->out, "x-ms-content-crc64: %.*s\r\n", (int)request->content_crc64.len, request->content_crc64.at);
    if (blob) add_state(call, blob);
    end(call, NULL, NULL, 0);
}

int conditions_hold(struct call *call, const struct blob *blob) {
    const struct request *request = call->request;
    if (blob && span_is(request->if_none_match, "*")) {
        refuse(call, "409 Conflict", "BlobAlreadyExists");
        return 0;
    }
    if (request->if_match.at && !span_is(request->if_match, "*")) {
        char etag[32] = "";
        if (blob) snprintf(etag, sizeof etag, "\"0x%016llX\"", (unsigned long long)blob->etag);
        if (!span_is(request->if_match, etag)) {
            refuse(call, "412 Precondition Failed", "ConditionNotMet");
            return 0;
        }
    }
    return 1;
}

uint64_t refused_count(void) { return refused; }

void forget_refused(void) { refused = 0; }
