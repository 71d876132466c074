/* Get Blob and Get Blob Properties: the head is made here, the bytes are named, and sent from where they lie. */
#define _GNU_SOURCE
#include "reply.h"

#include <stdlib.h>
#include <string.h>

/* Read "bytes=FIRST-[LAST]" into the bounds, the second exclusive; 0 when the blob has no byte there. */
static int find_range(struct span range, size_t size, size_t *begin, size_t *end) {
    char *rest;
    *begin = strtoull(range.at + strlen("bytes="), &rest, 10);
    *end = size;
    if (*rest == '-' && rest[1] >= '0' && rest[1] <= '9') {
        size_t last = strtoull(rest + 1, NULL, 10);
        if (last < size) *end = last + 1;
    }
    return *begin < *end;
}

void read_blob(struct call *call) {
    struct blob *blob = find_committed(call->name);
    int is_head = call->kind == HEAD_BLOB;
    if (blob == NULL || (!is_head && blob->size && blob->content == NULL)) {
        refuse(call, "404 The specified blob does not exist.", blob ? "NullServerThrewTheBodyAway" : "BlobNotFound");
        return;
    }
    if (!conditions_hold(call, blob)) return;
    size_t begun = 0, ended = blob->size;
    int is_range = !is_head && call->request->range.at && call->request->range.len > strlen("bytes=");
    if (is_range && !find_range(call->request->range, blob->size, &begun, &ended)) {
        refuse(call, "416 The range specified is invalid for the current size of the resource.", "InvalidRange");
        return;
    }
    char created[40];
    http_date(blob->created, created, sizeof created);
    begin(call, is_range ? "206 Partial Content" : "200 OK");
    add_state(call, blob);
    buffer_print(call->out, "x-ms-creation-time: %s\r\nx-ms-blob-type: BlockBlob\r\nx-ms-lease-status: unlocked\r\n"
                 "x-ms-lease-state: available\r\nx-ms-server-encrypted: true\r\nAccept-Ranges: bytes\r\n", created);
    if (is_range) buffer_print(call->out, "Content-Range: bytes %zu-%zu/%zu\r\n", begun, ended - 1, blob->size);
    for (const char *at = blob->metadata, *stop; at && *at; at = stop + 1) {
        stop = strchr(at, '\n');
        buffer_print(call->out, "x-ms-meta-%.*s\r\n", (int)(stop - at), at);
    }
    end(call, "application/octet-stream", NULL, ended - begun);
    if (is_head || ended == begun) return;
    call->answer->content = content_hold(blob->content);
    call->answer->begin = begun;
    call->answer->end = ended;
}
