"""Data sets, in memory or in files, and the guard against overlap."""

from ssl_extract.data import audio, builtin, folder, npz, streams, text  # noqa: F401  (they register)
from ssl_extract.data.decoding import DECODERS, Decoder, register_decoder
from ssl_extract.data.loading import DATASETS, load, rate_of, register
from ssl_extract.data.overlap import (
    NEAR,
    check_disjoint,
    check_train_test,
    count_near,
    count_shared,
)
from ssl_extract.data.records import Records, blocks, take
from ssl_extract.data.sets import (
    Dataset,
    check_images,
    check_kind,
    check_unpadded,
    check_waves,
    checked,
    decoder,
    digest,
    distinct,
    hashes,
    require_labels,
)
from ssl_extract.data.splits import select

__all__ = [
    'DATASETS',
    'DECODERS',
    'Dataset',
    'Decoder',
    'NEAR',
    'Records',
    'blocks',
    'check_disjoint',
    'check_images',
    'check_kind',
    'check_train_test',
    'check_unpadded',
    'check_waves',
    'checked',
    'count_near',
    'count_shared',
    'decoder',
    'digest',
    'distinct',
    'hashes',
    'load',
    'rate_of',
    'register',
    'register_decoder',
    'require_labels',
    'select',
    'take',
]
