"""How a config's attacker reaches its victim: query plan, account, endpoint, oracle.

Nothing here trains a surrogate; `ssl_extract.pipeline.surrogate` does, with what is made here.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from ssl_extract import attacks, defenses, oracle, strategies
from ssl_extract.pipeline import images as selection
from ssl_extract.pipeline import owner, stage
from ssl_extract.pipeline.stage import Trained
from ssl_extract.victims import endpoints


@functools.cache
def make_plan(plan: str, query_augmentation: str) -> attacks.Plan:
    """The query plan that a config describes."""
    asked = stage.make_augmentation(query_augmentation)
    return attacks.PLANS.make(plan, query_augmentation=asked)


def plan_of(cfg: ml_collections.ConfigDict) -> attacks.Plan:
    """The query plan of a config."""
    return make_plan(cfg.attack.plan, cfg.attack.query_augmentation)


def account_of(cfg: ml_collections.ConfigDict, target: Trained) -> dict[str, Any]:
    """Describes an account: victim, endpoint, defense, and the attacker's images, plan and seed.

    Budgets and attacks that choose their queries alike share an account (a row's bill is still what
    its attack alone would have paid); an online attack, and one that chooses by what it learnt,
    opens one of its own. Behind a defense every budget has its own, so that what the defense
    noticed in the end belongs to it.
    """
    who = {
        'stage': 'answers',
        'victim': target.address,
        'endpoint': owner.endpoint_spec(cfg, target),
        'defense': cfg.defense,
        'pool': selection.describe_pool(cfg),
        'plan': cfg.attack.plan,
        'query_augmentation': cfg.attack.query_augmentation,
        'strategy': cfg.attack.strategy,
        'seed': cfg.seed,
    }
    if cfg.defense:
        who |= {'budget': cfg.attack.budget}
    if cfg.attack.accounts > 1:
        who |= {'accounts': cfg.attack.accounts, 'overlap': cfg.attack.overlap}
    stored = plan_of(cfg).stored
    shared = stored and strategies.make(cfg.attack.strategy).rounds == 1
    return who if shared else who | cfg.attack.to_dict()


def account_key(cfg: ml_collections.ConfigDict, number: int = 0) -> jax.Array:
    """The key of the attacker's account, or of its sybils' by their number."""
    return jax.random.fold_in(jax.random.key(cfg.seed), 2 + 1000 * number)


def make_oracle(
    cfg: ml_collections.ConfigDict, target: Trained, workdir: epath.Path, mesh
) -> oracle.Oracle:
    """The only way from a victim to an attack."""
    endpoint = attacks.endpoint_of(cfg.attack.name)
    variables = {'encoder': target.variables, **target.head_variables}
    if 'classifier' in endpoints.needs(endpoint):
        variables[endpoints.CLASSIFIER] = owner.fit_classifier(cfg, target, workdir, mesh)
    answer = endpoints.make(endpoint, target.encoder, target.heads)
    encode = jax.tree_util.Partial(answer, variables)
    defense = owner.make_defense(cfg, target, workdir, mesh)
    return oracle.make_oracle(encode, defense, budget=cfg.attack.budget)


def answer_dim(cfg, encoder: str, heads, input_shape: tuple[int, ...]) -> int:
    """The width of the answers: what the endpoint gives, unless a defense changes it."""
    endpoint = attacks.endpoint_of(cfg.attack.name)
    classes = selection.load_tasks(cfg)[0].train.num_classes
    return _answer_dim(endpoint, cfg.defense, encoder, heads, input_shape, classes)


@functools.cache
def _answer_dim(endpoint, defense, encoder, heads, input_shape, num_classes) -> int:
    def answer(key):
        images = jnp.zeros((1, *input_shape))
        asked = example_oracle(endpoint, defense, encoder, heads, input_shape, num_classes, key)
        return asked.query(images, asked.init(key, images))[0].representations

    return jax.eval_shape(answer, jax.random.key(0)).shape[-1]


def example_oracle(
    endpoint, defense, encoder, heads, input_shape, num_classes, key
) -> oracle.Oracle:
    """An oracle over untrained networks, to find out shapes."""
    variables = endpoints.example_variables(key, encoder, heads, input_shape, num_classes)
    encode = jax.tree_util.Partial(endpoints.make(endpoint, encoder, heads), variables)
    given = owner.example_given(defense, endpoint, encoder, heads, variables)
    return oracle.make_oracle(encode, defenses.make(defense, **given), budget=1)
