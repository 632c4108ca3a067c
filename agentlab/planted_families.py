"""The twenty families of planted laws, with constants around the published ones (FACTS sections 1 to 3)."""

from __future__ import annotations

from agentlab.planted_records import Coefficient as Co
from agentlab.planted_records import Family, Feature

_POWERS_OF_TWO = tuple(2.0**i for i in range(10))

_N = Feature("N", 2e7, 2e9, grows=True, monotone="-")
_D = Feature("D", 4e8, 4e10, grows=True, monotone="-")
_FREE_N = Feature("N", 2e7, 2e9, grows=True)
_FREE_D = Feature("D", 4e8, 4e10, grows=True)

# A/N**a is .35 to 1.1 at N = 1e8, B/D**b likewise at D = 1e10: the published fits lie inside.
_BY_SIZE = (Co("a", 0.28, 0.40), Co("A", 0.35, 1.1, log=True, value="u*1e8**a"))
_BY_TOKENS = (Co("b", 0.24, 0.38), Co("B", 0.35, 1.1, log=True, value="u*1e10**b"))

CHINCHILLA = Family(
    "chinchilla",
    "E + A/N**a + B/D**b",
    (_N, _D),
    (Co("E", 1.5, 2.0), *_BY_SIZE, *_BY_TOKENS),
    "N*D",
    "arXiv 2203.15556, eq. 2, and its refit arXiv 2404.10102",
)

SKALING = Family(
    "skaling",
    "E + (A/N**a + B/D**b)**k",
    (_N, _D),
    (
        Co("E", 1.5, 2.0),
        Co("k", 0.5, 0.8),
        Co("a", 0.28, 0.40, value="u/k"),
        Co("A", 0.35, 1.1, log=True, value="u**(1/k)*1e8**a"),
        Co("b", 0.24, 0.38, value="u/k"),
        Co("B", 0.35, 1.1, log=True, value="u**(1/k)*1e10**b"),
    ),
    "N*D",
    "Skaling: one exponent around both terms, so that size and data limit each other (FACTS section 3)",
)

FARSEER = Family(
    "farseer",
    "exp(a3*N**g + b3) + exp(a2*N**b + b2)*D**(-exp(a1*N**a + b1))",
    (_N, _D),
    (
        Co("g", 0.15, 0.185),
        Co("a3", 0.35, 0.55, value="-u*1e8**(-g)"),
        Co("b3", 0.5, 0.9),
        Co("b", -0.12, -0.09),
        Co("a2", 8.0, 10.0, value="u*1e8**(-b)"),
        Co("b2", -0.8, -0.2),
        Co("a", 0.10, 0.14),
        Co("a1", 0.4, 0.55, value="-u*1e8**(-a)"),
        Co("b1", -0.55, -0.35),
    ),
    "N*D",
    "arXiv 2506.10972: the exponent of the data shrinks as the model grows",
    rows=(80, 200),
)

FINE_MOE = Family(
    "fine_moe",
    "c + (g/G**h + a)/N**al + b/D**be",
    (
        Feature("G", 1.0, 16.0, choices=(1.0, 2.0, 4.0, 8.0, 16.0)),
        Feature("N", 6e7, 4e9, grows=True, monotone="-"),
        Feature("D", 8e9, 1.3e11, grows=True, monotone="-"),
    ),
    (
        Co("c", 0.35, 0.6),
        Co("al", 0.10, 0.13),
        Co("a", 1.9, 2.4, value="u*1e8**al"),
        Co("g", 0.2, 0.35, value="u*1e8**al"),
        Co("h", 0.45, 0.7),
        Co("be", 0.13, 0.17),
        Co("b", 0.9, 1.2, value="u*1e10**be"),
    ),
    "N*D",
    "arXiv 2402.07871: 18.1, .115, 30.8, .147, g 2.1, .58, c .47",
    rows=(60, 200),
)

JOINT_MOE = Family(
    "joint_moe",
    "a*experts**de*N**(al + ga*log(experts)) + b*experts**om*D**(be + ze*log(experts)) + c",
    (
        Feature("experts", 1.0, 32.0, choices=_POWERS_OF_TWO[:6]),
        Feature("N", 2e7, 2e9, grows=True, monotone="-"),
        Feature("D", 1e9, 6e10, grows=True, monotone="-"),
    ),
    (
        Co("al", -0.21, -0.17),
        Co("a", 1.0, 1.25, value="u*1e8**(-al)"),
        Co("de", 0.19, 0.26),
        Co("ga", -0.0115, -0.0085),
        Co("be", -0.195, -0.16),
        Co("b", 0.5, 0.75, value="u*1e10**(-be)"),
        Co("om", -0.60, -0.50),
        Co("ze", 0.022, 0.028),
        Co("c", 1.2, 1.5),
    ),
    "N*D",
    "joint scaling law of mixture-of-experts models (arXiv 2502.05172), effective experts taken as counted",
    rows=(100, 200),
)

PARSCALE = Family(
    "parscale",
    "E + (A/(N*(k*log(P) + 1)))**a",
    (Feature("N", 2e8, 4.4e9, grows=True, monotone="-"), Feature("P", 1.0, 8.0, choices=(1.0, 2.0, 4.0, 8.0))),
    (Co("E", 1.1, 1.4), Co("A", 8e7, 3e8, log=True), Co("a", 0.17, 0.25), Co("k", 0.25, 0.5)),
    "N",
    "arXiv 2505.10475: P parallel streams are worth log P parameters",
)

RECTIFIED = Family(
    "rectified",
    "E + B/(t + D**b)",
    (Feature("D", 200.0, 2e4, grows=True, monotone="-"),),
    (
        Co("E", 1.0, 2.5),
        Co("b", 0.4, 0.9),
        Co("t", 0.3, 2.0, log=True, value="u*2000**b"),
        Co("B", 0.5, 2.0, log=True, value="u*t"),
    ),
    "D",
    "arXiv 2402.02314: fine-tuning loss with the data learned before; a group a model",
    rows=(60, 200),
    groups=5,
)

DATA_CONSTRAINED = Family(
    "data_constrained",
    "E + A/N**a + B/(min(D, unique)*(1 + R*(1 - exp(-(D/min(D, unique) - 1)/R))))**b",
    (_N, _D, Feature("unique", 2e8, 1e10)),
    (Co("E", 1.5, 2.0), *_BY_SIZE, *_BY_TOKENS, Co("R", 8.0, 25.0, log=True)),
    "N*D",
    "arXiv 2305.16264, eq. 5: repeated tokens are worth less and less (published R 15.39)",
    rows=(60, 200),
)

MOE_LEVERAGE = Family(
    "moe_leverage",
    "(A + s)**(a + d*log10(C) + g*log2(G)**2 + b*log2(G))",
    (
        Feature("A", 2 / 256, 1.0, choices=tuple(2.0 / 2**i for i in range(1, 9))),
        Feature("G", 2.0, 16.0, choices=(2.0, 4.0, 6.0, 8.0, 12.0, 16.0)),
        Feature("C", 2e18, 6e20, grows=True),
    ),
    (Co("a", 1.15, 1.31), Co("d", -0.081, -0.071), Co("g", 0.014, 0.02), Co("b", -0.135, -0.1), Co("s", 0.012, 0.022)),
    "C",
    "arXiv 2507.17702: a 1.23, d -.0761, g .0167, b -.117, s .0163 over the paper's ranges",
    target="EL",
)

SCALERL = Family(
    "scalerl",
    "R0 + (A - R0)/(1 + (Cm/C)**B)",
    (Feature("C", 2e2, 1e4, grows=True, monotone="+"),),
    (Co("R0", 0.1, 0.25), Co("A", 0.4, 0.8), Co("Cm", 1e3, 6e3, log=True), Co("B", 0.8, 2.0, log=True)),
    "C",
    "ScaleRL: pass rate against reinforcement-learning compute; a group a recipe. The sigmoid of observational laws",
    target="pass_rate",
    residual="plain",
    rows=(60, 200),
    groups=3,
    equal=("E + A/(B + C**b)", "E + A*sigmoid(a*log(C) + b)", "E + A/(1 + B*C**b)"),
)

LR_BOWL = Family(
    "lr_bowl",
    "E + A/N**a + B/D**b + K*(log(lr) - c - g*log(N) - h*log(D))**2",
    (_FREE_N, _FREE_D, Feature("lr", 3e-4, 2e-2)),
    (
        Co("E", 1.5, 2.0),
        *_BY_SIZE,
        *_BY_TOKENS,
        Co("K", 0.01, 0.04, log=True),
        Co("g", -0.75, -0.55),
        Co("h", 0.25, 0.35),
        Co("c", -6.2, -4.8, value="u - g*log(1e8) - h*log(1e10)"),
    ),
    "N*D",
    "a bowl in log lr around the step law lr = 1.79 N**-.713 D**.307 (arXiv 2503.04715)",
    rows=(100, 200),
)

MIXTURE = Family(
    "mixture",
    "E + A*D**a*exp(t1*r1 + t2*r2)",
    (
        _D,
        Feature("r1", 0.05, 0.5, log=False),
        Feature("r2", 0.05, 0.5, log=False),
    ),
    (
        Co("E", 1.4, 2.0),
        Co("a", -0.3, -0.15),
        Co("A", 0.6, 1.5, log=True, value="u*1e10**(-a)"),
        Co("t1", -1.6, -0.4),
        Co("t2", 0.3, 1.2),
    ),
    "D",
    "data mixing laws (arXiv 2403.16952): exponential in the shares of two domains, nested in a power of the data",
)

BROKEN = Family(
    "broken",
    "E + A*x**a*(1 + B*x**b)**c",
    (Feature("x", 1e5, 1e8, grows=True, monotone="-"),),
    (
        Co("E", 0.1, 0.4),
        Co("a", -0.15, -0.05),
        Co("A", 1.0, 3.0, log=True, value="u*1e6**(-a)"),
        Co("b", 1.0, 2.0),
        Co("B", 5e5, 3e6, log=True, value="u**(-b)"),
        Co("c", -0.4, -0.2, value="u/b"),
    ),
    "x",
    "broken neural scaling laws with one break (arXiv 2210.14891, eq. 1)",
    rows=(60, 200),
)

ROUTED = Family(
    "routed",
    "K*N**a*(1/(experts + s) + m)**(b + c*log(N))",
    (
        Feature("N", 1.5e7, 1.3e9, grows=True, monotone="-"),
        Feature("experts", 1.0, 512.0, choices=_POWERS_OF_TWO),
    ),
    (
        Co("K", 11.0, 14.0),
        Co("a", -0.09, -0.075),
        Co("s", 0.5, 1.5),
        Co("m", 0.002, 0.006, log=True),
        Co("b", 0.098, 0.118),
        Co("c", -0.0043, -0.0035),
    ),
    "N",
    "routed language models with saturating expert counts (arXiv 2202.01169): E_start 1.847, E_max 314",
)

VOCAB = Family(
    "vocab",
    "A/N**a + B/V**b + C/D**c + E",
    (
        Feature("N", 3e7, 1.2e9, grows=True, monotone="-"),
        Feature("V", 4e3, 1e5),
        Feature("D", 5e8, 3e10, grows=True, monotone="-"),
    ),
    (
        Co("E", 1.5, 2.2),
        *_BY_SIZE,
        Co("b", 0.3, 0.6),
        Co("B", 0.1, 0.4, log=True, value="u*1e4**b"),
        Co("c", 0.24, 0.38),
        Co("C", 0.35, 1.1, log=True, value="u*1e10**c"),
    ),
    "N*D",
    "vocabulary as a third size (arXiv 2407.13623), all terms positive",
    rows=(60, 200),
)

# ---- outside the starting grammar: fixed before any tuning, never to be changed (a test holds their hash) ----

DOUBLE_DESCENT = Family(
    "double_descent",
    "E + A/N**a + B/(1 + ((log(N) - c - g*log(n))/w)**2)",
    (Feature("N", 1e3, 1e6, grows=True), Feature("n", 1e3, 1e5, grows=True)),
    (
        Co("E", 0.2, 0.6),
        Co("a", 0.2, 0.4),
        Co("A", 0.3, 1.0, log=True, value="u*1e4**a"),
        Co("B", 0.15, 0.5, log=True),
        Co("g", 0.7, 1.1),
        Co("c", -0.5, 0.5, value="u + (1 - g)*log(1e4)"),
        Co("w", 0.4, 1.0),
    ),
    "N*n",
    "double descent as a resonance: test error peaks where the parameters can just fit the samples (arXiv 1912.02292)",
    target="error",
    rows=(80, 200),
    outside=True,
)

CRITICAL_BATCH = Family(
    "critical_batch",
    "E + A/N**a + K*((1 + k/batch)/steps)**b",
    (
        Feature("N", 1e7, 1e9, grows=True, monotone="-"),
        Feature("steps", 1e3, 1e5, grows=True, monotone="-"),
        Feature("batch", 1.6e4, 4e6),
    ),
    (
        Co("E", 1.5, 2.0),
        *_BY_SIZE,
        Co("b", 0.3, 0.6),
        Co("K", 0.5, 1.5, log=True, value="u*1e4**b"),
        Co("k", 1.5e5, 1e6, log=True),
    ),
    "N*steps*batch",
    "steps at a finite batch are worth 1/(1 + B_crit/B) of the steps at an infinite one (arXiv 1812.06162, 2001.08361)",
    rows=(60, 200),
    outside=True,
)

PRECISION = Family(
    "precision",
    "E + A/(N*(1 - exp(-P/g)))**a + B/D**b",
    (_N, _D, Feature("P", 2.0, 16.0, choices=(2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0))),
    (Co("E", 1.5, 2.0), *_BY_SIZE, *_BY_TOKENS, Co("g", 2.0, 4.0)),
    "N*D",
    "scaling laws for precision (arXiv 2411.04330): parameters of P bits count as 1 - exp(-P/g)",
    rows=(60, 200),
    outside=True,
)

OVEROPTIMISATION = Family(
    "overoptimisation",
    "d*(A + B*log(N) - (C + H*log(N))*log(d))",
    (Feature("N", 3e6, 3e8, grows=True), Feature("d", 0.5, 12.0)),
    (
        Co("B", 0.02, 0.05),
        Co("A", 0.6, 0.9, value="u - B*log(1e8)"),
        Co("H", -0.02, -0.01),
        Co("C", 0.22, 0.32, value="u - H*log(1e8)"),
    ),
    "N",
    "reward-model overoptimisation (arXiv 2210.10760): d is the square root of the KL divergence, N the reward model",
    target="reward",
    residual="plain",
    outside=True,
)

TRANSFER = Family(
    "transfer",
    "E + A/N**a + B/(D + k*D**c*N**e)**b",
    (Feature("N", 1e6, 3e8, grows=True, monotone="-"), Feature("D", 1e6, 3e9, grows=True, monotone="-")),
    (
        Co("E", 1.0, 1.8),
        Co("a", 0.2, 0.35),
        Co("A", 0.2, 0.6, log=True, value="u*1e7**a"),
        Co("b", 0.2, 0.35),
        Co("B", 0.5, 1.5, log=True, value="u*1e8**b"),
        Co("c", 0.15, 0.25),
        Co("e", 0.3, 0.45),
        Co("k", 3.0, 30.0, log=True, value="u*1e7**(1 - c - e)"),
    ),
    "N*D",
    "effective data transferred from pre-training (arXiv 2102.01293): k D_F**.18 N**.38 more tokens",
    rows=(80, 200),
    outside=True,
)

FAMILIES: tuple[Family, ...] = (
    CHINCHILLA,
    SKALING,
    FARSEER,
    FINE_MOE,
    JOINT_MOE,
    PARSCALE,
    RECTIFIED,
    DATA_CONSTRAINED,
    MOE_LEVERAGE,
    SCALERL,
    LR_BOWL,
    MIXTURE,
    BROKEN,
    ROUTED,
    VOCAB,
    DOUBLE_DESCENT,
    CRITICAL_BATCH,
    PRECISION,
    OVEROPTIMISATION,
    TRANSFER,
)
