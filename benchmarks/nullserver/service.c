/* What a blob service answers, from a memory that holds names, sizes and metadata of everything, and the bytes of little or of all.
 *
 * Guarantees:
 * - a blob that was put or committed is found by HEAD, Get Block List and List Blobs with its size and metadata, until /_reset;
 * - bodies up to KEEP_BYTES_MAX are served again unless their key lies under objects/ or packs/: what an upload of vds reads of its
 *   own store; with --keep all bodies are;
 * - If-None-Match: * and If-Match are honoured, and Put Block List refuses blocks that were not staged;
 * - nothing else is checked: no signature, no digest, no size limit. A real service spends its own time on those.
 */
#define _GNU_SOURCE
#include "reply.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define KEEP_BYTES_MAX (1u << 20)
#define BLOCK_LIST_BYTES_MAX (64u << 20)

static const char *const KIND_NAMES[KINDS] = {
    "put_blob", "put_block", "put_block_list", "get_block_list", "append_block", "copy_blob", "get_blob", "head_blob",
    "delete_blob", "set_blob", "list_blobs", "container", "account", "unknown",
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t counts[KINDS], body_bytes, sent_bytes, connection_count;
static int keeps_all;
/* CLOCK_MONOTONIC: when the first request was whole, the last, and when the last body of an answer was out; 0 before any. */
static double first_s, last_s, sent_s;

/* ---- answers ---- */

static void put_blob(struct call *call) {
    if (!conditions_hold(call, find_committed(call->name))) return;
    struct blob *blob = find_or_add(call->name);
    blocks_free(&blob->staged);
    blocks_free(&blob->committed);
    commit(blob, call->request, call->request->body_len, call->body ? content_make(&call->body, 1) : NULL);
    accept_write(call, "201 Created", blob);
}

static void put_block(struct call *call) {
    char id[256];
    if (!query_value(call->request->query, "blockid", id, sizeof id)) {
        refuse(call, "400 Bad Request", "InvalidQueryParameterValue");
        return;
    }
    struct blob *blob = find_or_add(call->name);
    struct block *block = blocks_find(&blob->staged, id, strlen(id));
    if (block) {
        body_drop(block->body);
        block->size = call->request->body_len;
        block->body = body_hold(call->body);
    } else {
        blocks_add(&blob->staged, id, strlen(id), call->request->body_len, call->body);
    }
    accept_write(call, "201 Created", NULL);
}

/* Append the blocks that the body of Put Block List names to `chosen`; returns their bytes, or -1 when one is not there. */
static long long choose_blocks(struct blob *blob, const char *body, size_t len, struct blocks *chosen) {
    static const char *const TAGS[] = {"<Latest>", "<Uncommitted>", "<Committed>"};
    const char *at = body, *stop = body + len;
    long long total = 0;
    while (at && (at = memchr(at, '<', (size_t)(stop - at)))) {
        int tag = 0;
        while (tag < 3 && strncmp(at, TAGS[tag], strlen(TAGS[tag])) != 0) tag++;
        if (tag == 3) {
            at++;
            continue;
        }
        at += strlen(TAGS[tag]);
        const char *id_end = memchr(at, '<', (size_t)(stop - at));
        if (id_end == NULL) return -1;
        struct block *found = tag != 2 ? blocks_find(&blob->staged, at, (size_t)(id_end - at)) : NULL;
        if (!found && tag != 1) found = blocks_find(&blob->committed, at, (size_t)(id_end - at));
        if (!found) return -1;
        blocks_add(chosen, at, (size_t)(id_end - at), found->size, found->body);
        total += (long long)found->size;
        at = id_end + 1;
    }
    return total;
}

/* Return what the blocks hold together; NULL when any of it was thrown away. */
static struct content *join(const struct blocks *blocks) {
    size_t count = 0;
    for (const struct block *block = blocks->first; block; block = block->next) {
        if (block->body == NULL && block->size) return NULL;
        count += block->body != NULL;
    }
    struct body **bodies = malloc((count + 1) * sizeof *bodies);
    count = 0;
    for (const struct block *block = blocks->first; block; block = block->next)
        if (block->body) bodies[count++] = block->body;
    struct content *content = count ? content_make(bodies, count) : NULL;
    free(bodies);
    return content;
}

static void put_block_list(struct call *call) {
    if (!conditions_hold(call, find_committed(call->name))) return;
    struct blob *blob = find_or_add(call->name);
    struct blocks chosen = {0};
    long long size = call->body ? choose_blocks(blob, call->body->data, call->body->len, &chosen) : -1;
    if (size < 0) {
        blocks_free(&chosen);
        refuse(call, "400 Bad Request", "InvalidBlockList");
        return;
    }
    blocks_free(&blob->staged);
    blocks_free(&blob->committed);
    blob->committed = chosen;
    commit(blob, call->request, (size_t)size, join(&chosen));
    accept_write(call, "201 Created", blob);
}

static void add_blocks(struct buffer *xml, const char *tag, const struct blocks *blocks) {
    buffer_print(xml, "<%s>", tag);
    for (const struct block *block = blocks->first; block; block = block->next)
        buffer_print(xml, "<Block><Name>%s</Name><Size>%zu</Size></Block>", block->id, block->size);
    buffer_print(xml, "</%s>", tag);
}

static void get_block_list(struct call *call) {
    struct blob *blob = *slot_of(call->name);
    char type[32];
    query_value(call->request->query, "blocklisttype", type, sizeof type);
    if (blob == NULL || (!blob->is_committed && blob->staged.first == NULL)) {
        refuse(call, "404 The specified blob does not exist.", "BlobNotFound");
        return;
    }
    struct buffer xml = {0};
    buffer_print(&xml, "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    if (strcmp(type, "uncommitted") != 0) add_blocks(&xml, "CommittedBlocks", &blob->committed);
    if (strcmp(type, "uncommitted") == 0 || strcmp(type, "all") == 0) add_blocks(&xml, "UncommittedBlocks", &blob->staged);
    buffer_print(&xml, "</BlockList>");
    begin(call, "200 OK");
    end(call, "application/xml", xml.data, xml.len);
    free(xml.data);
}

static void append_block(struct call *call) {
    struct blob *blob = find_committed(call->name);
    if (blob == NULL) {
        refuse(call, "404 The specified blob does not exist.", "BlobNotFound");
        return;
    }
    size_t offset = blob->size;
    blob->size += call->request->body_len;
    blob->etag = next_etag();
    blob->modified = time(NULL);
    content_drop(blob->content); /* of the appended bytes nothing is kept, so nothing of the blob can be served */
    blob->content = NULL;
    begin(call, "201 Created");
    add_state(call, blob);
    buffer_print(call->out, "x-ms-blob-append-offset: %zu\r\nx-ms-blob-committed-block-count: 1\r\n"
                 "x-ms-request-server-encrypted: true\r\n", offset);
    end(call, NULL, NULL, 0);
}

/* Copy within the account: the source is the part of its url behind the account's name. */
static void copy_blob(struct call *call) {
    char name[NAME_MAX_BYTES];
    struct span source = call->request->copy_source;
    const char *query = memchr(source.at, '?', source.len);
    if (query) source.len = (size_t)(query - source.at);
    decode(source, name, sizeof name);
    char *at = strstr(name, "://");
    for (int slashes = 0; at && slashes < 2; slashes++) at = strchr(at + (slashes ? 1 : 3), '/');
    struct blob *from = at ? find_committed(at + 1) : NULL;
    if (from == NULL) {
        refuse(call, "404 The specified resource does not exist.", "CannotVerifyCopySource");
        return;
    }
    if (!conditions_hold(call, find_committed(call->name))) return;
    struct blob *blob = find_or_add(call->name);
    commit(blob, call->request, from->size, content_hold(from->content));
    if (call->request->metadata_count == 0 && from->metadata) blob->metadata = strdup(from->metadata);
    begin(call, "202 Accepted");
    add_state(call, blob);
    buffer_print(call->out, "x-ms-copy-id: 00000000-0000-4000-8000-000000000000\r\nx-ms-copy-status: success\r\n");
    end(call, NULL, NULL, 0);
}

static void delete_blob(struct call *call) {
    struct blob **slot = slot_of(call->name);
    if (*slot == NULL || !(*slot)->is_committed) {
        refuse(call, "404 The specified blob does not exist.", "BlobNotFound");
        return;
    }
    if (!conditions_hold(call, *slot)) return;
    forget(slot);
    begin(call, "202 Accepted");
    buffer_print(call->out, "x-ms-delete-type-permanent: true\r\n");
    end(call, NULL, NULL, 0);
}

/* ---- containers, the account, and the server itself ---- */

static void answer_container(struct call *call) {
    const struct request *request = call->request;
    char comp[32];
    query_value(request->query, "comp", comp, sizeof comp);
    int is_making = request->method == METHOD_PUT && comp[0] == 0, is_dropping = request->method == METHOD_DELETE;
    int is_reading = request->method == METHOD_GET || request->method == METHOD_HEAD;
    char date[40];
    http_date(time(NULL), date, sizeof date);
    begin(call, is_making ? "201 Created" : is_dropping ? "202 Accepted" : "200 OK");
    buffer_print(call->out, "ETag: \"0x1\"\r\nLast-Modified: %s\r\nx-ms-lease-status: unlocked\r\nx-ms-lease-state: available\r\n"
                 "x-ms-has-immutability-policy: false\r\nx-ms-has-legal-hold: false\r\n", date);
    static const char ACL[] = "<?xml version=\"1.0\" encoding=\"utf-8\"?><SignedIdentifiers />";
    if (is_reading && strcmp(comp, "acl") == 0) end(call, "application/xml", ACL, sizeof ACL - 1);
    else end(call, NULL, NULL, 0);
}

static void answer_account(struct call *call) {
    char comp[32];
    query_value(call->request->query, "comp", comp, sizeof comp);
    static const char NONE[] = "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Containers /><NextMarker />"
                               "</EnumerationResults>";
    static const char SERVICE[] = "<?xml version=\"1.0\" encoding=\"utf-8\"?><StorageServiceProperties />";
    begin(call, "200 OK");
    buffer_print(call->out, "x-ms-sku-name: Standard_LRS\r\nx-ms-account-kind: StorageV2\r\nx-ms-is-hns-enabled: false\r\n");
    if (strcmp(comp, "list") == 0) end(call, "application/xml", NONE, sizeof NONE - 1);
    else end(call, "application/xml", SERVICE, sizeof SERVICE - 1);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void service_sent(void) {
    pthread_mutex_lock(&lock);
    sent_s = now_s();
    pthread_mutex_unlock(&lock);
}

void service_counts_connection(void) { __atomic_fetch_add(&connection_count, 1, __ATOMIC_RELAXED); }

static void answer_stats(struct call *call) {
    struct buffer json = {0};
    uint64_t total = 0;
    for (int kind = 0; kind < KINDS; kind++) total += counts[kind];
    buffer_print(&json, "{\"requests\": %llu, \"refused\": %llu, \"connections\": %llu, \"body_bytes\": %llu, "
                 "\"sent_bytes\": %llu, \"blobs\": %zu, "
                 "\"first_s\": %.6f, \"last_s\": %.6f, \"sent_s\": %.6f, \"kinds\": {", (unsigned long long)total,
                 (unsigned long long)refused_count(), (unsigned long long)connection_count, (unsigned long long)body_bytes,
                 (unsigned long long)sent_bytes, count_blobs(), first_s, last_s, sent_s);
    for (int kind = 0; kind < KINDS; kind++)
        buffer_print(&json, "%s\"%s\": %llu", kind ? ", " : "", KIND_NAMES[kind], (unsigned long long)counts[kind]);
    buffer_print(&json, "}}");
    begin(call, "200 OK");
    end(call, "application/json", json.data, json.len);
    free(json.data);
}

/* Forget everything; with ?counters only the counters, so that a second run meets what the first one left. */
static void answer_reset(struct call *call) {
    if (!span_is(call->request->query, "counters"))
        forget_all();
    memset(counts, 0, sizeof counts);
    forget_refused();
    body_bytes = sent_bytes = connection_count = 0;
    first_s = last_s = sent_s = 0;
    begin(call, "200 OK");
    end(call, NULL, NULL, 0);
}

/* ---- which answer ---- */

static enum kind kind_of_blob(const struct request *request) {
    char comp[32];
    query_value(request->query, "comp", comp, sizeof comp);
    switch (request->method) {
    case METHOD_HEAD: return HEAD_BLOB;
    case METHOD_DELETE: return DELETE_BLOB;
    case METHOD_GET: return strcmp(comp, "blocklist") == 0 ? GET_BLOCK_LIST : comp[0] == 0 ? GET_BLOB : UNKNOWN;
    case METHOD_PUT: break;
    default: return UNKNOWN;
    }
    if (strcmp(comp, "block") == 0) return request->copy_source.at ? UNKNOWN : PUT_BLOCK;
    if (strcmp(comp, "blocklist") == 0) return PUT_BLOCK_LIST;
    if (strcmp(comp, "appendblock") == 0) return APPEND_BLOCK;
    if (comp[0]) return SET_BLOB;
    return request->copy_source.at ? COPY_BLOB : PUT_BLOB;
}

/* Take the address apart: /account, /account/container or /account/container/key. */
static void parse(const struct request *request, struct call *call) {
    struct span rest = request->target;
    const char *slash = rest.len > 1 ? memchr(rest.at + 1, '/', rest.len - 1) : NULL;
    call->request = request;
    call->name[0] = 0;
    call->key = NULL;
    if (slash && slash + 1 < rest.at + rest.len) {
        decode((struct span){slash + 1, rest.len - (size_t)(slash + 1 - rest.at)}, call->name, sizeof call->name);
        call->key = strchr(call->name, '/');
        if (call->key && *++call->key == 0) {
            call->key[-1] = 0;
            call->key = NULL;
        }
    }
    char comp[32];
    query_value(request->query, "comp", comp, sizeof comp);
    if (call->name[0] == 0) call->kind = ACCOUNT;
    else if (call->key) call->kind = kind_of_blob(request);
    else call->kind = request->method == METHOD_GET && strcmp(comp, "list") == 0 ? LIST_BLOBS : CONTAINER;
}

static int is_thrown_away(const char *key) {
    for (const char *at = key; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
        if (strncmp(at, "objects/", 8) == 0 || strncmp(at, "packs/", 6) == 0) return 1;
    return 0;
}

size_t service_keeps_body(const struct request *request) {
    struct call call;
    if (request->method != METHOD_PUT || request->body_len == 0) return 0;
    parse(request, &call);
    if (call.kind == PUT_BLOCK_LIST) return request->body_len <= BLOCK_LIST_BYTES_MAX ? request->body_len : 0;
    if (keeps_all) return call.kind == PUT_BLOB || call.kind == PUT_BLOCK ? request->body_len : 0;
    return call.kind == PUT_BLOB && request->body_len <= KEEP_BYTES_MAX && !is_thrown_away(call.key) ? request->body_len : 0;
}

void service_keeps_all(void) { keeps_all = 1; }

static void answer(struct call *call) {
    switch (call->kind) {
    case PUT_BLOB: put_blob(call); return;
    case PUT_BLOCK: put_block(call); return;
    case PUT_BLOCK_LIST: put_block_list(call); return;
    case GET_BLOCK_LIST: get_block_list(call); return;
    case APPEND_BLOCK: append_block(call); return;
    case COPY_BLOB: copy_blob(call); return;
    case GET_BLOB:
    case HEAD_BLOB: read_blob(call); return;
    case DELETE_BLOB: delete_blob(call); return;
    case SET_BLOB: accept_write(call, "200 OK", find_committed(call->name)); return;
    case LIST_BLOBS: list_blobs(call); return;
    case CONTAINER: answer_container(call); return;
    case ACCOUNT: answer_account(call); return;
    default: refuse(call, "400 Bad Request", "UnsupportedByTheNullServer");
    }
}

int service_answer(const struct request *request, struct body *body, struct answer *answered) {
    struct call call = {.body = body, .answer = answered, .out = &answered->text};
    int is_own = span_is(request->target, "/_stats") ? 1 : span_is(request->target, "/_reset") ? 2 : 0;
    parse(request, &call);
    pthread_mutex_lock(&lock);
    if (is_own == 1) answer_stats(&call);
    else if (is_own == 2) answer_reset(&call);
    else {
        last_s = now_s();
        if (first_s == 0) first_s = last_s;
        counts[call.kind]++;
        body_bytes += request->body_len;
        answer(&call);
        sent_bytes += answered->end - answered->begin;
    }
    pthread_mutex_unlock(&lock);
    return is_own != 0;
}
