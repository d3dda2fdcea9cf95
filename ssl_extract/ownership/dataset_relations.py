"""Dataset relations: crops of private images, against shadows."""

from typing import Annotated

import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.ownership.dataset_inference import compare_members
from ssl_extract.ownership.views import between, represent_views, within
from ssl_extract.ranges import Range

GLOBAL = 'random_resized_crop(scale=(0.4, 1.0))'
LOCAL = 'random_resized_crop(scale=(0.05, 0.4))'


@register('dataset_relations', needs=('private', 'public'), null='members')
def dataset_relations(
    global_crops: Annotated[int, Range(1, 100)] = 2, local_crops: Annotated[int, Range(1, 100)] = 6
) -> Test:
    """Compares how crops of an image relate, private against public, suspect against shadows.

    The relation of an image is the mean cosine between its own crops minus the mean cosine of its
    crops to those of all other images. An encoder of private images has the larger relations there.
    From a suspect's relation the mean relation in `case.shadows`, or else in `case.independents`,
    is subtracted, which takes out how easy an image is. The statistic is Welch's t of the
    differences on private against public images. Give one shadow (as the paper) or several.

    Xie et al. 2025, "Dataset ownership verification in contrastive pre-trained models" (arXiv
    2502.07276), compare the same gaps with a t-test over draws of images. Here each image has one
    difference, so that the images are the sample; the paper's two kinds of relations are one
    number.

    Cosines are within one encoder, so that a suspect may have any width and any orthogonal map,
    scale or permutation.

    Assumptions: private and public images are a random split of one set; shadows or independents
    were trained on neither. n counts both sets. The p-value is over that split, and holds for every
    encoder trained on neither set, or on both alike, if n is large enough for a t-test. An encoder
    that somebody else trained on private images is found too: it says nothing of the victim.

    >>> images = np.random.default_rng(0).random((80, 4, 4, 3), np.float32)
    >>> flat = lambda x: x.reshape(len(x), -1)
    >>> case = Case(flat, images[:40], images[40:], shadows=(lambda x: flat(x) - 0.5,))
    >>> dataset_relations(local_crops=1)(case, flat).n
    80

    Args:
        global_crops: crops of 0.4 to 1 of an image's area.
        local_crops: crops of 0.05 to 0.4 of it. Each crop is resized to the image.

    Raises:
        UserError: in the test, there are neither shadows nor independents, the inputs are no images
            in [0, 1], or all differences are the same.
    """
    crops = [GLOBAL] * global_crops + [LOCAL] * local_crops

    def test(case: Case, suspect: Represent) -> Evidence:
        references = case.shadows or case.independents
        if not references:
            raise UserError(
                "ownership test 'dataset_relations' needs shadows or independents: give some in "
                'the case'
            )
        images = np.concatenate([case.private, case.public])
        shown = represent_views([suspect, *references], images, crops, case.seed)
        own, *others = (within(views) - between(views) for views in shown)
        differences = own - np.mean(others, axis=0)
        return compare_members(differences[: len(case.private)], differences[len(case.private) :])

    return test
