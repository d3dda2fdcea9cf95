"""Serves an empty bucket named `bucket` over loopback HTTP; the argument is the port.

The emulator answers one connection at a time, lacks the request that renames a file, and does not
say which generation of a file it answers with; all three are mended here.
"""

import http.server
import sys
import threading

MOVE = r'^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.+)/moveTo/o/(?P<target_id>.+)$'


def main(port):
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    whole = objects.download

    def move(request, response, storage, *args, **kwargs):
        del args, kwargs
        bucket, source = request.params['bucket_name'], request.params['object_id']
        moved = objects._copy(
            request.base_url, storage, bucket, source, bucket, request.params['target_id']
        )
        objects._delete(storage, bucket, source)
        response.json(moved)

    def download(request, response, storage, *args, **kwargs):
        whole(request, response, storage, *args, **kwargs)
        if response.status != http.HTTPStatus.NOT_FOUND:
            found = storage.get_file_obj(request.params['bucket_name'], request.params['object_id'])
            response['x-goog-generation'] = found['generation']

    objects.download = download
    server.server.HTTPServer = http.server.ThreadingHTTPServer
    server.HANDLERS = ((MOVE, {server.POST: move}), *server.HANDLERS)
    server.create_server('127.0.0.1', port, in_memory=True, default_bucket='bucket').start()
    threading.Event().wait()


if __name__ == '__main__':
    main(int(sys.argv[1]))
