"""The nine shared sets of real runs and the published forms that each is compared with.

Splits come from the sets' own MANIFEST.json. `dev` is a split inside the training rows, for work on the engine: with
it no test row is read. Sources: Chinchilla (arXiv 2203.15556), Skaling and the routed law (FACTS sections 1 and 3; the
latter arXiv 2202.01169), the step law (arXiv 2503.04715), leverage (arXiv 2507.17702), Gemstones (arXiv 2502.06857),
over-training (arXiv 2403.08540), annealing by momentum (arXiv 2408.11029), the multi-power law (arXiv 2503.12811), M1
to M3 (arXiv 2209.06640; M4 of that paper is implicit and no formula), BNSL with one break (arXiv 2210.14891).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product


@dataclass(frozen=True)
class Form:
    """A published form: of several `formulas` each group takes the one that fits its training rows best.

    With `params` the constants are the published ones and nothing is fitted.
    """

    name: str
    formulas: tuple[str, ...]
    params: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LawSet:
    """One set: what the product is told, the forms it is compared with, and the split inside its training rows.

    `made` names the derived table (see laws_tables.py), "" the set's own file. `dev_params` replaces `max_params` where
    the inner split leaves fewer rows.
    """

    name: str
    features: tuple[str, ...]
    target: str
    forms: tuple[Form, ...]
    dev: tuple[str, str]
    where: str | None = None
    group: str | None = None
    scale: str | None = None
    run: str | None = "run_id"
    max_params: int | None = None
    dev_params: int | None = None
    made: str = ""


def _form(name: str, *formulas: str, **params: float) -> Form:
    return Form(name, formulas, params)


def _surface(n: str, d: str) -> tuple[Form, Form]:
    """The two laws of model size and tokens that apply to nearly every set."""
    return (
        _form("Chinchilla", f"E + A/{n}**a + B/{d}**b"),
        _form("Skaling", f"E + (A/{n}**a + B/{d}**b)**k"),
    )


CHINCHILLA = LawSet(
    name="chinchilla_epoch",
    features=("n_params", "tokens"),
    target="loss",
    where="is_outlier_besiroglu==0",
    scale="compute_train",
    dev=("compute_train<1e20", "compute_train>=1e20 and compute_train<9.5e20"),
    forms=(*_surface("n_params", "tokens"), _form("power law with offset", "E + A/(n_params*tokens)**a")),
)

_BOWL = "E + A/n_params**a + B/tokens**b + p*(log(lr) - {lr})**2 + q*(log(batch_tokens) - {batch})**2"
PUBLISHED_BOWL = _BOWL.format(lr="log(1.79*n_params**-0.713*tokens**0.307)", batch="log(0.58*tokens**0.571)")
FITTED_BOWL = _BOWL.format(lr="(F + g*log(n_params) + z*log(tokens))", batch="(G + h*log(tokens))")

DENSE = LawSet(
    name="dense_steplaw",
    features=("n_params", "tokens", "lr", "batch_tokens"),
    target="loss_smooth",
    where="diverged==0",
    scale="tokens",
    max_params=12,
    dev=("tokens<2.1e10", "tokens>2.1e10 and tokens<5e10"),
    forms=(
        *_surface("n_params", "tokens"),
        _form("power law with offset", "E + A/(n_params*tokens)**a"),
        _form("Step law, published optimum", PUBLISHED_BOWL),
        _form("Step law, fitted optimum", FITTED_BOWL),
        _form(
            "SLDBench human law",
            "A/tokens**a + B/n_params**b + C + d*(lr - F*n_params**g*tokens**z)**2"
            " + e*(log(batch_tokens) + G*tokens**h/batch_tokens)",
        ),
    ),
)

MOE_STEP = LawSet(
    name="moe_steplaw",
    # The manifest groups by moe_config, where a group has one model size and so a single curve in tokens. Fitted over
    # all groups instead, sizes share strength; n_total differs by 0.3% and is left out.
    features=("n_active", "tokens", "lr", "batch_tokens"),
    target="loss_smooth",
    scale="tokens",
    max_params=12,
    dev=("tokens<=4e9", "tokens==8e9"),
    forms=(
        *_surface("n_active", "tokens"),
        _form("power law with offset", "E + A/(n_active*tokens)**a"),
        _form("Step law, published optimum", PUBLISHED_BOWL.replace("n_params", "n_active")),
        _form("Step law, fitted optimum", FITTED_BOWL.replace("n_params", "n_active")),
    ),
)

_BELOW = "(num_experts - 1 + s*m/(m - s))"
_EXPERTS = f"m*{_BELOW}/(m + {_BELOW})"
"""Experts that saturate at m: the harmonic sum of FACTS section 1, multiplied out."""


ROUTED = LawSet(
    name="moe_routing_clark",
    features=("n_active", "num_experts"),
    target="loss_validation",
    where="top_k==1 and routing_frequency==0.5 and seed==42 and flop_increase==1",
    group="router_type",
    scale="n_active",
    dev=("n_active<5e7", "n_active>5e7 and n_active<3e8"),
    made="routed",
    forms=(
        _form("Clark's routed law", f"exp(a*log(n_active) + (b + c*log(n_active))*log({_EXPERTS}) + d)"),
        _form("Clark's bilinear law", "exp(a*log(n_active) + (b + c*log(n_active))*log(num_experts) + d)"),
        _form("joint MoE law at fixed tokens", "A*num_experts**d*n_active**(a + g*log(num_experts)) + E"),
        *_surface("n_active", "num_experts"),
        _form("power law with offset", "E + A/n_active**a"),
    ),
)

LEVERAGE = LawSet(
    name="moe_leverage_clark_derived",
    features=("activation_ratio", "compute_train"),
    target="efficiency_leverage",
    where="top_k==1",
    group="router_type",
    scale="compute_train",
    dev=("n_active<5e7", "n_active>5e7 and n_active<3e8"),
    forms=(
        _form("leverage law", "(activation_ratio + s)**(a + d*log10(compute_train))"),
        _form(
            "leverage law, published constants",
            # granularity is 0.5 in every row, so that gamma (log2 G)^2 + beta log2 G = gamma - beta
            "(activation_ratio + s)**(a + d*log10(compute_train) + c - b)",
            s=0.0163,
            a=1.23,
            d=-0.0761,
            c=0.0167,
            b=-0.117,
        ),
        _form("power law with offset", "E + A/activation_ratio**a"),
        _form(
            "bilinear in logs", "exp(a + b*log(activation_ratio) + (c + d*log(activation_ratio))*log(compute_train))"
        ),
    ),
)

GEMSTONES = LawSet(
    name="gemstones_width_depth",
    features=("n_params", "tokens", "width", "depth"),
    target="loss",
    where="variant=='hot'",
    scale="tokens",
    max_params=9,
    dev=("tokens<5.5e10 and split_group=='le_100B_tokens'", "tokens>5.5e10 and split_group=='le_100B_tokens'"),
    forms=(
        *_surface("n_params", "tokens"),
        _form("Gemstones law", "E + A/width**a + B/depth**b + C/n_params**c + D/tokens**d"),
        _form("power law with offset", "E + A/(n_params*tokens)**a"),
    ),
)

_GADRE_TRAIN = (
    "(model in ['d=96_l=8_h=4','d=512_l=8_h=4','d=576_l=24_h=8'] and token_multiplier==20)"
    " or (model=='d=96_l=8_h=4' and token_multiplier==320)"
)

OVERTRAIN = LawSet(
    name="overtrain_gadre",
    features=("n_params", "token_multiplier"),
    target="loss_c4_val",
    group="train_dataset",
    scale="compute_train_6nd",
    max_params=4,
    dev_params=3,
    dev=(_GADRE_TRAIN, "model=='d=1024_l=24_h=8' and token_multiplier==20"),
    forms=(
        _form(
            "over-training law",
            "E + (A*token_multiplier**h + B/token_multiplier**h)/(6*n_params**2*token_multiplier)**h",
        ),
        *_surface("n_params", "(n_params*token_multiplier)"),
        _form("power law with offset", "E + A/(n_params**2*token_multiplier)**a"),
    ),
)

MULTI_POWER_GRID = tuple(product((0.3, 0.5, 0.7), (0.25, 1.0, 4.0), (0.3, 0.5, 0.7)))
"""Values of gamma, C and beta inside the multi-power law's sum over the schedule, which no formula of columns holds."""

SCHEDULES = LawSet(
    name="lr_schedule_mpl",
    features=("lr_sum", "lr_fall", "lr_now"),
    target="loss",
    group="model_size_m",
    dev=("schedule!='cosine_24000' and split_source=='train'", "schedule=='cosine_24000' and split_source=='train'"),
    made="schedules",
    forms=(
        _form("multi-power law", *(f"E + A/lr_sum**a - B*mpl_{i}" for i in range(len(MULTI_POWER_GRID)))),
        _form("momentum law", "E + A/lr_sum**a - B*lr_fall"),
        _form("power law with offset", "E + A/lr_sum**a"),
    ),
)

CURVES = LawSet(
    name="learning_curves_92",
    features=("seen_examples",),
    target="loss",
    group="curve_id",
    scale="seen_examples",
    run="curve_id",
    dev=("inner==1", "inner==2"),
    made="curves",
    forms=(
        _form("M1: power law", "B/seen_examples**b"),
        _form("power law with offset (M2)", "E + B/seen_examples**b"),
        _form("M3: shifted power law", "E + B/(seen_examples + s)**b"),
        _form("BNSL, one break", "E + B/seen_examples**b*(1 + (seen_examples*exp(-d))**f)**(-c/f)"),
    ),
)

SETS = (CHINCHILLA, DENSE, MOE_STEP, ROUTED, LEVERAGE, GEMSTONES, OVERTRAIN, SCHEDULES, CURVES)
