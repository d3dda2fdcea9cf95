"""Serves an empty bucket named `bucket` over loopback HTTP; the argument is the port.

The emulator answers one connection at a time and lacks the request that renames a file; both are
mended here.
"""

import http.server
import sys
import threading

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects


def move(request, response, storage, *args, **kwargs):
    del args, kwargs
    bucket, source = request.params['bucket_name'], request.params['object_id']
    moved = objects._copy(
        request.base_url, storage, bucket, source, bucket, request.params['target_id']
    )
    objects._delete(storage, bucket, source)
    response.json(moved)


MOVE = r'^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.+)/moveTo/o/(?P<target_id>.+)$'

if __name__ == '__main__':
    server.server.HTTPServer = http.server.ThreadingHTTPServer
    server.HANDLERS = ((MOVE, {server.POST: move}), *server.HANDLERS)
    emulator = server.create_server(
        '127.0.0.1', int(sys.argv[1]), in_memory=True, default_bucket='bucket'
    )
    emulator.start()
    threading.Event().wait()
