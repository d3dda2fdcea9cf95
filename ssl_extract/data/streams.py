"""Image sets that do not fit in memory: `records(name="a_set")`."""

from ssl_extract.data.loading import Side, register
from ssl_extract.data.records import Files, Records
from ssl_extract.data.sets import Dataset


@register('records')
def records(name: str, *, split: str, size: Side | None, data_dir: str, cache_dir: str) -> Dataset:
    """Opens an image-classification set of TFDS without loading it: `data.Records`.

    Rows are read and decoded when they are needed, ahead of their use in training, and are those of
    the set in memory. The first use reads the labels, and a run compares contents, which reads all
    images once; both are kept under `cache_dir`.

    >>> try: records('unprepared', split='train', size=8, data_dir='', cache_dir='')
    ... except ValueError as error: print(str(error)[:40])
    no prepared copy of data set 'unprepared

    Args:
        name: of the set, such as 'cifar10', 'cifar10:3.0.2' or 'set/config', prepared as
            array_record.
        split: 'train', 'train[:100000]+test', ...
        size: side in pixels, see `load`; None keeps the images, which must be of one size then.
        data_dir: the folder of prepared sets; '' for the default of TFDS.
        cache_dir: the folder of labels and hashes; '' for ~/.cache/ssl_extract.

    Raises:
        UserError: there is no such set or slice, it is prepared in another format, its files are
            damaged, or images differ in size and `size` is None.
    """
    opened = Files(name, split, size, data_dir, cache_dir)
    images = Records(opened)
    return Dataset(images, images.labels(), opened.num_classes)
