"""An untrained victim with a head, for tests to which a victim is a victim; the tests' own."""

import jax
import jax.numpy as jnp

from ssl_extract import victims
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.owner import Owner, owner_of
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.pipeline.surrogate import Extraction, extraction_of
from ssl_extract.pipeline.victim import Sketch
from ssl_extract.victims import Victim

SHAPE = (8, 8, 3)
HEADS = (('head', 'simclr(hidden=8, dim=8)'),)


def victim(encoder: str) -> Victim:
    """A victim with the network that `encoder` describes."""
    networks = {'encoder': trained.make(encoder)}
    networks |= {name: trained.make_head(spec) for name, spec in HEADS}
    variables = chain.init(networks, jax.random.key(7), jnp.zeros((1, *SHAPE)))
    head_variables = {'head': chain.part(variables, 'head')}
    whole = Encoder(encoder, chain.part(variables, 'encoder'), SHAPE, HEADS, head_variables)
    return victims.from_encoder(whole, 'untrained')


def sketch(victim: Victim) -> Sketch:
    """What the pipeline knows of the victim before it is there."""
    return Sketch(victim.encoder.spec, HEADS, SHAPE, victim.dim, address=victim.address)


def owner(run: Run, victim: Victim) -> Owner:
    """The owner of the victim in a run, whatever victim the config describes."""
    return owner_of(run, load_sets(run), victim)


def extraction(run: Run, victim: Victim) -> Extraction:
    """The attack that a config describes, on this victim."""
    return extraction_of(run, load_sets(run), sketch(victim), owner(run, victim))
