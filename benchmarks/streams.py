"""Training from files: `python -m benchmarks.streams --steps=200`.

Writes JPEGs of smooth random colors as a set of TFDS in array_record files, as many and as large as
those of ImageNet, trains a small network from `records(...)`, and prints

- the seconds until the set is open, at first and again;
- images decoded in a second by threads, alone;
- steps in a second from files, and on images in memory;
- the largest memory of the process that trains, of few records and of all;
- the seconds to the first batch, from the beginning and in the middle of an epoch.

Each part has a process of its own. The files lie in a temporary folder in `--folder` and are
removed afterwards. Two thousand bodies of JPEGs are drawn; a comment makes each record unique.
"""

import contextlib
import functools
import io
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow_datasets as tfds
from absl import flags, logging
from array_record.python import array_record_module
from etils import epath
from PIL import Image
from tensorflow_datasets.core import naming

from benchmarks import commands
from ssl_extract import augment, data, encoders, training, victims
from ssl_extract.runtime import parallel

NAME, VERSION, CLASSES = 'synthetic', '1.0.0', 1000
BODIES = 2048  # different images
SHARD = 20_000  # records of a file

_RECORDS = flags.DEFINE_integer('records', 1_281_167, 'Images to write.', lower_bound=1000)
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.', lower_bound=8)
_BATCH = flags.DEFINE_integer('batch_size', 128, 'Images of a step.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 200, 'Steps to time.', lower_bound=4)
_FOLDER = flags.DEFINE_string('folder', '', 'Of the files; the system has a default.')
_PART = flags.DEFINE_string('part', '', 'Of the measurement, in a process of its own.')


def bodies(count: int, size: int) -> list[bytes]:
    """Draws JPEGs of smooth random colors."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(count):
        colors = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        colors.resize((size, size), Image.Resampling.BICUBIC).save(buffer, 'JPEG', quality=70)
        drawn.append(buffer.getvalue())
    return drawn


def record(body: bytes, number: int) -> bytes:
    """Serializes an example of TFDS: a JPEG with its number in a comment, and a class.

    The message is written by hand, since a builder takes a millisecond for each: `tf.train.Example`
    is a map from the name of a feature to a list of bytes or of whole numbers.
    """
    comment = b'\xff\xfe\x00\x0a' + number.to_bytes(8, 'big')
    image = body[:2] + comment + body[2:]
    features = {
        b'image': _field(1, _field(1, image)),  # a list of bytes
        b'label': _field(3, _field(1, _varint(number % CLASSES))),  # a list of whole numbers
    }
    entries = (_field(1, _field(1, key) + _field(2, value)) for key, value in features.items())
    return _field(1, b''.join(entries))


def _field(number: int, content: bytes) -> bytes:
    """Writes a field of a message, of wire type 2."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def write(folder: pathlib.Path, count: int, size: int, shard: int = SHARD) -> None:
    """Writes a prepared set of TFDS with a split 'train'."""
    where = folder / NAME / VERSION
    where.mkdir(parents=True)
    lengths = [len(part) for part in np.array_split(np.arange(count), -(-count // shard))]
    names = naming.ShardedFileTemplate(
        data_dir=epath.Path(where),
        template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
        dataset_name=NAME,
        split='train',
        filetype_suffix='array_record',
    )
    drawn, written = bodies(min(BODIES, count // 8), size), 0
    for index, length in enumerate(lengths):
        path = names.sharded_filepath(shard_index=index, num_shards=len(lengths))
        # JPEGs do not shrink further.
        writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
        for number in range(written, written + length):
            writer.write(record(drawn[number % len(drawn)], number))
        writer.close()
        written += length
    features = tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg'),
            'label': tfds.features.ClassLabel(num_classes=CLASSES),
        }
    )
    features.save_config(str(where))
    about = {
        'name': NAME,
        'version': VERSION,
        'fileFormat': 'array_record',
        'splits': [
            {
                'name': 'train',
                'filepathTemplate': names.template,
                'numBytes': str(sum(file.stat().st_size for file in where.glob('*record*'))),
                'shardLengths': [str(length) for length in lengths],
            }
        ],
    }
    (where / 'dataset_info.json').write_text(json.dumps(about))


def main(arguments: list[str]) -> None:
    """Prints the figures of all parts, or measures one part."""
    del arguments
    logging.set_verbosity(logging.ERROR)
    if _PART.value:
        print(json.dumps(PARTS[_PART.value](pathlib.Path(_FOLDER.value), int(_RECORDS.value))))
        return
    with tempfile.TemporaryDirectory(dir=_FOLDER.value or None) as name:
        folder, count = pathlib.Path(name), _RECORDS.value
        begun = time.monotonic()
        write(folder, count, _SIZE.value)
        seconds, size = time.monotonic() - begun, _gigabytes(folder)
        print(f'{count:,} records of {_SIZE.value}x{_SIZE.value}, {size:.2f} GB, ', end='')
        print(f'written in {seconds:,.0f} s ({count / seconds:,.0f} a second)', flush=True)
        few = min(count, SHARD)
        for part, records in (('stream', few), ('stream', count), ('resume', count), ('memory', 0)):
            for line in _measured(part, folder, records):
                print(line, flush=True)


def _gigabytes(folder: pathlib.Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob('*record*') if file.is_file()) / 1e9


def _measured(part: str, folder: pathlib.Path, records: int) -> list[str]:
    """Measures a part in a process of its own."""
    flags_ = [f'--{flag.name}={flag.value}' for flag in (_SIZE, _BATCH, _STEPS)]
    given = [f'--part={part}', f'--folder={folder}', f'--records={max(records, 1000)}', *flags_]
    command = [sys.executable, '-m', 'benchmarks.streams', *given]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _load(folder: pathlib.Path, count: int) -> data.Dataset:
    """Opens the first records."""
    spec, where = f'records(name="{NAME}")', {'data_dir': str(folder), 'cache_dir': str(folder)}
    return data.load(spec, f'train[:{count}]', size=_SIZE.value, **where)


def _stream(folder: pathlib.Path, count: int) -> list[str]:
    begun = time.monotonic()
    dataset = _load(folder, count)
    opened, begun = time.monotonic() - begun, time.monotonic()
    _load(folder, count)
    again = time.monotonic() - begun
    order = training.epoch_order(0, 0, count)
    blocks = np.array_split(order[: _STEPS.value * _BATCH.value], _STEPS.value)
    begun, decoded = time.monotonic(), 0
    for block in data.blocks(dataset.inputs, blocks):
        decoded += len(block)
    alone = decoded / (time.monotonic() - begun)
    rate, peak = _steps(dataset.inputs), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        f'{count:,} records:',
        f'  opened, labels and all, in {opened:.1f} s, and again in {again:.1f} s',
        f'  decoded alone: {alone:,.0f} images a second',
        f'  trained from files: {rate:.2f} steps of {_BATCH.value} a second '
        f'({rate * _BATCH.value:,.0f} images)',
        f'  largest memory of the process: {peak:.2f} GiB '
        f'(all images: {dataset.inputs.nbytes / 2**30:,.1f} GiB)',
    ]


def _resume(folder: pathlib.Path, count: int) -> list[str]:
    inputs, mesh, lines = _load(folder, count).inputs, parallel.data_mesh(), []
    steps = count // _BATCH.value
    list(data.blocks(inputs, [np.arange(2)]))  # imports
    for name, start in (('the beginning', 0), ('the middle', steps // 2)):
        rows = functools.partial(training.batch_rows, 1, count, _BATCH.value)
        begun = time.monotonic()
        batches = training.batches_of({'inputs': inputs}, rows, range(start, steps), mesh)
        with contextlib.closing(batches):
            batch = next(batches)
            seconds = time.monotonic() - begun
        same = np.array_equal(np.asarray(batch['inputs']), inputs[rows(start)])
        text = 'the rows of the order' if same else 'WRONG ROWS'
        lines.append(f'  first batch of {name} of an epoch after {seconds:.2f} s: {text}')
    return lines


def _memory(folder: pathlib.Path, count: int) -> list[str]:
    rate = _steps(_load(folder, 1000).inputs[: 8 * _BATCH.value])
    return [f'on batches in memory: {rate:.2f} steps a second ({rate * _BATCH.value:,.0f} images)']


def _steps(inputs: np.ndarray | data.Records) -> float:
    """Trains a small network and returns steps a second, without the first steps."""
    encoder = encoders.make('resnet18(stem="patch", width=16, stages=(1, 1))')
    method, views = 'simclr(hidden=64, dim=32)', augment.make('flip')
    recipe = victims.VICTIMS.make(method, encoder=encoder, augmentation=views)
    how = {'batch_size': _BATCH.value, 'learning_rate': 1e-3, 'mesh': parallel.data_mesh()}
    with tempfile.TemporaryDirectory() as folder:
        how['folder'] = epath.Path(folder)
        training.fit(recipe, {'inputs': inputs}, num_steps=4, **how)
        begun = time.monotonic()
        training.fit(recipe, {'inputs': inputs}, num_steps=4 + _STEPS.value, **how)
        return _STEPS.value / (time.monotonic() - begun)


PARTS = {'stream': _stream, 'resume': _resume, 'memory': _memory}

if __name__ == '__main__':
    commands.start(main)
