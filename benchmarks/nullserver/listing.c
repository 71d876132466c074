/* List Blobs. */
#define _GNU_SOURCE
#include "reply.h"

#include <stdlib.h>
#include <string.h>

#define LIST_PAGE_BLOBS 5000

static void add_listed(struct buffer *xml, const struct blob *blob, const char *key) {
    char created[40], modified[40];
    http_date(blob->created, created, sizeof created);
    http_date(blob->modified, modified, sizeof modified);
    buffer_print(xml, "<Blob><Name>");
    add_xml(xml, key, strlen(key));
    buffer_print(xml, "</Name><Properties><Creation-Time>%s</Creation-Time><Last-Modified>%s</Last-Modified><Etag>0x%016llX</Etag>"
                 "<Content-Length>%zu</Content-Length><Content-Type>application/octet-stream</Content-Type>"
                 "<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus>"
                 "<LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties><Metadata>",
                 created, modified, (unsigned long long)blob->etag, blob->size);
    for (const char *at = blob->metadata, *stop; at && *at; at = stop + 1) {
        stop = strchr(at, '\n');
        const char *colon = memchr(at, ':', (size_t)(stop - at));
        buffer_print(xml, "<%.*s>", (int)(colon - at), at);
        add_xml(xml, colon + 1, (size_t)(stop - colon - 1));
        buffer_print(xml, "</%.*s>", (int)(colon - at), at);
    }
    buffer_print(xml, "</Metadata></Blob>");
}

void list_blobs(struct call *call) {
    char prefix[NAME_MAX_BYTES], marker[NAME_MAX_BYTES], delimiter[8], pages[16];
    struct span query = call->request->query;
    query_value(query, "prefix", prefix, sizeof prefix);
    query_value(query, "marker", marker, sizeof marker); /* the first key of the page */
    query_value(query, "delimiter", delimiter, sizeof delimiter);
    size_t left = query_value(query, "maxresults", pages, sizeof pages) ? strtoul(pages, NULL, 10) : LIST_PAGE_BLOBS;
    if (left == 0 || left > LIST_PAGE_BLOBS) left = LIST_PAGE_BLOBS;
    size_t count, at = 0, skip = strlen(call->name) + 1, prefix_len = strlen(prefix);
    struct blob **found = find_listed(call->name, prefix, &count);
    struct buffer xml = {0};
    buffer_print(&xml, "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"null\" "
                 "ContainerName=\"%s\"><Prefix>", call->name);
    add_xml(&xml, prefix, prefix_len);
    buffer_print(&xml, "</Prefix><Blobs>");
    while (at < count && strcmp(found[at]->name + skip, marker) < 0) at++;
    for (; at < count && left; left--) {
        const char *key = found[at]->name + skip, *cut = delimiter[0] ? strstr(key + prefix_len, delimiter) : NULL;
        if (cut == NULL) {
            add_listed(&xml, found[at++], key);
            continue;
        }
        size_t folder = (size_t)(cut - key) + strlen(delimiter);
        buffer_print(&xml, "<BlobPrefix><Name>");
        add_xml(&xml, key, folder);
        buffer_print(&xml, "</Name></BlobPrefix>");
        while (at < count && strncmp(found[at]->name + skip, key, folder) == 0) at++;
    }
    buffer_print(&xml, "</Blobs><NextMarker>");
    if (at < count) add_xml(&xml, found[at]->name + skip, strlen(found[at]->name + skip));
    buffer_print(&xml, "</NextMarker></EnumerationResults>");
    begin(call, "200 OK");
    end(call, "application/xml", xml.data, xml.len);
    free(xml.data);
    free(found);
}
