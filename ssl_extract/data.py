"""temporary draft by the lead: overwrite"""
from typing import NamedTuple
import numpy as np, hashlib
from sklearn.datasets import load_digits
from PIL import Image
from ssl_extract.errors import UserError
class Dataset(NamedTuple):
    images: np.ndarray
    labels: np.ndarray | None
    num_classes: int
    name: str
def load(name, split, *, size=None, data_dir='', cache_dir=''):
    d=load_digits(); o=np.random.default_rng(0).permutation(1797)
    x=(d.images[o]*255/16).astype(np.uint8); y=d.target[o].astype(np.int32)
    if size: x=np.stack([np.asarray(Image.fromarray(i).resize((size,size),Image.BILINEAR)) for i in x])
    x=np.repeat(x[...,None],3,-1)
    base,_,sl=split.partition('[')
    x,y=(x[:1297],y[:1297]) if base=='train' else (x[1297:],y[1297:])
    if sl:
        a,b=sl[:-1].split(':'); q=slice(int(a) if a else None,int(b) if b else None); x,y=x[q],y[q]
    return Dataset(x,y,10,f'{name}/{split}')
def hashes(images): return np.array([hashlib.blake2b(i.tobytes(),digest_size=16).digest() for i in images])
def check_disjoint(a,b):
    n=len(set(hashes(a.images))&set(hashes(b.images)))
    if n: raise UserError(f'{n} images of {a.name} are in {b.name}')
def require_labels(d): pass
def distinct(d):
    _,i=np.unique(hashes(d.images),return_index=True); i.sort()
    return d._replace(images=d.images[i],labels=d.labels[i])
