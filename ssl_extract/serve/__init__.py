"""A victim behind a defense as an HTTP service, with accounts."""

from ssl_extract.serve.app import Limits, make_app
from ssl_extract.serve.service import Service, open_service

__all__ = ['Limits', 'Service', 'make_app', 'open_service']
