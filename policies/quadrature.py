"""The probability that each of several independent scores is the largest, by quadrature.

For independent scores with densities f_a and distribution functions F_a,

    P(a is largest) = ∫ f_a(x) ∏_{b≠a} F_b(x) dx = ∫ (f_a / F_a)(x) ∏_b F_b(x) dx.

This is the pmf of Thompson sampling (Thompson 1933; Chapelle & Li 2011), where the score of an
action is drawn from its posterior; computing it, rather than drawing, makes the propensity exact.
"""

import functools
import math

import numpy as np
from scipy.special import betainc, betaln, gammainc, gammainccinv, gammaincinv, gammaln, ndtr

from policies.types import FloatArray

_REACH = 6.7  # Φ(−6.7) = 1e-11: beyond it a normal score is certain
_TIGHTER = np.array([0.0, 0.15, 0.3, 0.42])
_UNLIKELY = 1e-11
_BREAKS = np.array([-8.5, -4.0, -2.0, 0.0, 2.0, 4.0, 8.5])
# Ranges over narrowest scale, and with how many nodes these err by about 1e-9: for up to ten
# actions the number at the same place, for up to fifty the next, for more the one after that, since
# a product of more rises more steeply.
_RATIOS = np.array([8.0, 12.5, 17.0, 21.0, 28.0])
_NODES = (24, 32, 40, 48, 64, 80, 96)
_FEW = np.array([10, 50])
_PANEL_NODES = 10
_BETA_NODES = 24
_BETA_REACH = 9.0
_BETA_PANEL = 2.0
_GAMMA_NODES = 24
_GAMMA_TAILS = np.array([1e-17, 1e-8, 1e-4, 0.01, 0.1, 0.3])
_NEGLIGIBLE = -60.0
_RIGHT_ANGLE = math.pi / 2.0
_CHUNK = 1 << 19  # evaluations held at once: about 4 MB an array
_CACHED = 1 << 15  # of which a processor's cache holds a few arrays
_BLOCK = 1 << 14
_LOG_ROOT_TAU = 0.5 * math.log(2.0 * math.pi)
_TINY = 1e-14
_NORMAL = 1e-280
_LIFT = 2.0**600


def largest_gaussian(mean: FloatArray, scale: FloatArray) -> FloatArray:
    """P(a is largest) for independent normal scores, to about 1e-9.

    Where the scales are comparable, Gauss–Legendre over the range in which the largest can lie, of
    24 to 96 points by how many of the narrowest scale that range is. Where they differ too much for
    that, 10-point panels with breaks at m_b ± {0, 2, 4, 8.5} s_b, so that no action's scale is too
    narrow to be seen.

    Parameters
    ----------
    mean, scale
        (n, k), in one unit; scale ≥ 0. A scale of zero, or one negligible beside the others and
        the spread of the means, counts as 1e-9 of these: equal certain scores share alike.

    Returns
    -------
    (n, k), each row summing to one.
    """
    pmf = np.empty_like(mean)
    step = max(1, _BLOCK // max(mean.shape[1], 1))
    for i in range(0, len(mean), step):
        some = slice(i, i + step)
        pmf[some] = _largest_gaussian(mean[some], scale[some])
    return pmf


def _largest_gaussian(mean: FloatArray, scale: FloatArray) -> FloatArray:
    mean = mean - np.maximum.reduce(mean, axis=1, keepdims=True)
    magnitude = np.maximum(np.maximum.reduce(scale, axis=1), -np.minimum.reduce(mean, axis=1))
    if (subnormal := magnitude < _NORMAL).any():
        # Reciprocals of what is smaller overflow; in another unit the probabilities are the same.
        unit = np.where(subnormal, _LIFT, 1.0)
        mean, scale, magnitude = mean * unit[:, None], scale * unit[:, None], magnitude * unit
    least = 1e-9 * magnitude
    least[least == 0.0] = 1.0
    scale = np.maximum(scale, least[:, None])
    low, high = _range(mean, scale)
    # An action whose whole range lies below `low` is never the largest: its scale is no matter.
    narrowest = np.where(mean + _REACH * scale > low[:, None], scale, np.inf)
    ratio = (high - low) / np.minimum.reduce(narrowest, axis=1)
    steps = _RATIOS.searchsorted(ratio)
    if (steps == steps[0]).all():
        return _by_step(int(steps[0]), mean, scale, low, high)
    pmf = np.empty_like(mean)
    for step in np.unique(steps).tolist():
        rows = np.flatnonzero(steps == step)
        pmf[rows] = _by_step(step, mean[rows], scale[rows], low[rows], high[rows])
    return pmf


def _by_step(
    step: int, mean: FloatArray, scale: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Rows whose range is at most ``_RATIOS[step]`` of the narrowest scale, or more than any."""
    if step == len(_RATIOS):
        return _panelled(mean, scale, low, high)
    nodes = _NODES[step + int(_FEW.searchsorted(mean.shape[1]))]
    return _by_integrals(nodes, mean, scale, low, high)


def _range(mean: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where the largest score lies, (n,) and (n,), but for a probability of about 1e-11 each way.

    Each action alone says that it is above m − 6.7 s; together they say so of some higher point,
    of which three are tried.
    """
    reach = _REACH * scale
    low: FloatArray = np.maximum.reduce(mean - reach, axis=1)
    high: FloatArray = np.maximum.reduce(mean + reach, axis=1)
    tried = low[:, None] + (high - low)[:, None] * _TIGHTER[1:]
    z = tried[:, None, :] - mean[:, :, None]
    z /= scale[:, :, None]
    below = np.multiply.reduce(ndtr(z, out=z), axis=1)
    tight = np.add.reduce(below < _UNLIKELY, axis=1)
    return low + (high - low) * _TIGHTER[tight], high


def _by_integrals(
    nodes: int, mean: FloatArray, scale: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """The pmf by densities alone: at the nodes F is Φ at ``low`` and the integral of f from there.

    That integral is a product with one matrix, several times quicker than Φ of every node, and as
    exact as the rule itself.
    """
    powers, weight, integral = _cumulative(nodes)
    k = mean.shape[1]
    pmf = np.empty_like(mean)
    step = max(1, _CACHED // (nodes * k))
    for i in range(0, len(mean), step):
        some = slice(i, i + step)
        # z = begin + length t for t in [0, 1]; −z²/2 is a polynomial in t.
        inverse = 1.0 / scale[some]
        begin = (low[some, None] - mean[some]) * inverse
        length = (high - low)[some, None] * inverse
        terms = np.empty((*begin.shape, 3))
        terms[..., 0] = np.log(length) - _LOG_ROOT_TAU - 0.5 * begin * begin
        terms[..., 1] = -begin * length
        terms[..., 2] = -0.5 * length * length
        density = terms.reshape(-1, 3) @ powers
        np.exp(density, out=density)
        below = density @ integral
        # Rounding leaves F of either sign where it vanishes; as f / F · ∏ F it cancels unless 0.
        below += (ndtr(begin) + _TINY).reshape(-1, 1)
        density /= below
        density, below = density.reshape(-1, k, nodes), below.reshape(-1, k, nodes)
        all_below = np.multiply.reduce(below, axis=1)
        all_below *= weight
        pmf[some] = np.matmul(density, all_below[:, :, None])[:, :, 0]
    np.maximum(pmf, 0.0, out=pmf)
    pmf /= np.add.reduce(pmf, axis=1, keepdims=True)
    return pmf


@functools.cache
def _cumulative(nodes: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A rule on [0, 1] for analytic functions: powers 0, 1, 2 of its nodes, weights, integrals.

    Gauss–Legendre nodes crowd at the ends, where there is nothing to see; x = arcsin(α u) /
    arcsin(α) spreads them, with α such that the map costs no more than 1e-8 of accuracy at 1e-8
    (Hale & Trefethen 2008, New quadrature formulas from conformal maps). Values f (…, n) at the
    nodes times the third array (n, n) are integrals of f from 0 to each node: those of the
    polynomial through f, in Legendre's basis.
    """
    u, w = np.polynomial.legendre.leggauss(nodes)
    legendre = np.polynomial.legendre.legvander(u, nodes)
    order = np.arange(nodes)
    coefficients = (order + 0.5)[:, None] * (legendre[:, :-1].T * w)
    integrals = np.empty((nodes, nodes))
    integrals[:, 0] = u + 1.0
    integrals[:, 1:] = (legendre[:, 2:] - legendre[:, :-2]) / (2.0 * order[1:] + 1.0)
    alpha = 1.0 / math.cosh(-math.log(1e-8) / nodes)
    node = 0.5 + 0.5 * np.arcsin(alpha * u) / math.asin(alpha)
    slope = 0.5 * alpha / np.sqrt(1.0 - (alpha * u) ** 2) / math.asin(alpha)
    return node ** np.arange(3)[:, None], w * slope, ((integrals @ coefficients) * slope).T.copy()


def _panelled(mean: FloatArray, scale: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    node, weight = _legendre(_PANEL_NODES)
    edges = (mean[:, :, None] + scale[:, :, None] * _BREAKS).reshape(
        len(mean), mean.shape[1] * len(_BREAKS)
    )
    edges = np.sort(np.clip(edges, low[:, None], high[:, None]), axis=1)
    width = np.diff(edges, axis=1)
    pmf = np.empty_like(mean)
    step = max(1, _CHUNK // (_PANEL_NODES * mean.shape[1]))
    for row in range(len(mean)):
        panels = np.flatnonzero(width[row])
        mass = np.zeros((1, mean.shape[1]))
        for i in range(0, len(panels), step):
            some = panels[i : i + step]
            x = (edges[row, some, None] + width[row, some, None] * node).reshape(1, -1)
            w = (width[row, some, None] * weight).reshape(1, -1)
            mass += _mass(x, w, mean[row : row + 1], scale[row : row + 1])
        pmf[row] = mass[0] / mass.sum()
    return pmf


def _mass(x: FloatArray, weight: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
    """Integrals (n, k) over nodes x (n, q) with weights (q,) or (n, q)."""
    z = x[:, None, :] - mean[:, :, None]
    z /= scale[:, :, None]
    below = ndtr(z)
    np.multiply(z, z, out=z)
    z *= -0.5
    density = np.exp(z, out=z)
    all_below = np.multiply.reduce(below, axis=1)
    all_below *= weight
    # Φ underflows far below an action's range, where the product has long vanished.
    density /= np.maximum(below, 1e-300, out=below)
    mass: FloatArray = np.matmul(density, all_below[:, :, None])[:, :, 0]
    mass /= scale
    return mass


def largest_beta(a: FloatArray, b: FloatArray) -> FloatArray:
    """P(each is largest) for independent Beta(a, b) scores.

    Integrated over θ with x = sin²θ, in which the densities are bounded for a, b ≥ ½ and each
    has a standard deviation of about 1 / (2 √(a + b)) wherever its mean lies. An action whose
    whole range lies below another's is never the largest, and is left out; the rest is cut into
    panels of 24 Gauss–Legendre points, two deviations wide, those of the narrowest action where
    its range reaches, and geometric towards 0 and π/2, where a non-integer power has no Taylor
    series. Panels over which ∏ F is less than e^−60 are skipped.

    Parameters
    ----------
    a, b
        (k,), each ≥ ½.

    Returns
    -------
    (k,), summing to one.
    """
    centre = np.arctan2(np.sqrt(a), np.sqrt(b))
    # The log-density's curvature is −2 (a + b − 1) at least everywhere, so the tails are no
    # heavier than a normal's of this deviation (Bakry & Émery 1985).
    reach = _BETA_REACH / np.sqrt(np.maximum(2.0 * (a + b - 1.0), 1.0))
    low = max(0.0, float((centre - reach).max()))
    high = min(_RIGHT_ANGLE, float((centre + reach).max()))
    possible = np.flatnonzero(centre + reach >= low)
    pmf = np.zeros(len(a))
    pmf[possible] = _largest_beta(a[possible], b[possible], low, high)
    return pmf


def _largest_beta(a: FloatArray, b: FloatArray, low: float, high: float) -> FloatArray:
    node, weight = _legendre(_BETA_NODES)
    edges = _beta_edges(a, b, low, high)
    with np.errstate(divide="ignore"):
        log_below = np.log(betainc(a, b, np.sin(edges[1:, None]) ** 2)).sum(axis=1)
    edges = np.concatenate([edges[:-1][log_below > _NEGLIGIBLE], edges[-1:]])
    width = np.diff(edges)
    log_scale = np.log(2.0) - betaln(a, b)
    mass = np.zeros(len(a))
    step = max(1, _CHUNK // (_BETA_NODES * len(a)))
    for i in range(0, len(width), step):
        some = slice(i, i + step)
        theta = (edges[:-1][some, None] + width[some, None] * node).ravel()[:, None]
        w = (width[some, None] * weight).ravel()
        sine, cosine = np.sin(theta), np.cos(theta)
        log_density = log_scale + (2 * a - 1) * np.log(sine) + (2 * b - 1) * np.log(cosine)
        below = np.maximum(betainc(a, b, sine * sine), 1e-300)
        mass += (w * below.prod(axis=1)) @ (np.exp(log_density) / below)
    return np.asarray(mass / mass.sum(), dtype=np.float64)


def _beta_edges(a: FloatArray, b: FloatArray, low: float, high: float) -> FloatArray:
    """Where panels begin and end, ascending from ``low`` to ``high``."""
    centre = np.arctan2(np.sqrt(a), np.sqrt(b))
    deviation = 0.5 / np.sqrt(a + b)
    reach = _BETA_REACH / np.sqrt(np.maximum(2.0 * (a + b - 1.0), 1.0))
    # From the narrowest action on: its range is cut finely, unless a narrower one has cut it.
    edges = [low, high]
    covered: list[tuple[float, float]] = []
    for action in np.argsort(deviation, kind="stable").tolist():
        begin = max(low, float(centre[action] - reach[action]))
        end = min(high, float(centre[action] + reach[action]))
        meets = [span for span in covered if span[0] <= end and begin <= span[1]]
        position = begin
        for start, stop in [*sorted(meets), (end, end)]:
            if start > position:
                panels = math.ceil((start - position) / (_BETA_PANEL * deviation[action]))
                edges += np.linspace(position, start, panels + 1).tolist()
            position = max(position, stop)
        whole = [*meets, (begin, end)]
        covered = [span for span in covered if span not in meets]
        covered.append((min(span[0] for span in whole), max(span[1] for span in whole)))
    grading = _RIGHT_ANGLE * 10.0 ** np.arange(-6.0, 0.0)
    ends = np.concatenate([grading, _RIGHT_ANGLE - grading])
    return np.unique(np.concatenate([edges, ends[(low < ends) & (ends < high)]]))


def largest_gamma(shape: FloatArray, rate: FloatArray) -> FloatArray:
    """P(each is largest) for independent Gamma(shape, rate) scores.

    Integrated over t = log x, in which the densities are log-concave and analytic, by panels of 24
    Gauss–Legendre points between the quantiles of all actions, from the highest 1e-17 quantile on.

    Parameters
    ----------
    shape, rate
        (k,), shape ≥ ½ and rate > 0.

    Returns
    -------
    (k,), summing to one.
    """
    lower = np.log(gammaincinv(shape, _GAMMA_TAILS[:, None]) / rate)
    upper = np.log(gammainccinv(shape, _GAMMA_TAILS[:, None]) / rate)
    low, high = float(lower[0].max()), float(upper[0].max())
    middle = np.log(gammaincinv(shape, 0.5) / rate)
    edges = np.unique(np.clip(np.concatenate([lower, upper, middle[None]]), low, high))
    possible = upper[0] > low
    pmf = np.zeros(len(shape))
    pmf[possible] = _largest_gamma(shape[possible], rate[possible], edges)
    return pmf


def _largest_gamma(shape: FloatArray, rate: FloatArray, edges: FloatArray) -> FloatArray:
    node, weight = _legendre(_GAMMA_NODES)
    width = np.diff(edges)
    log_scale = shape * np.log(rate) - gammaln(shape)
    mass = np.zeros(len(shape))
    step = max(1, _CHUNK // (_GAMMA_NODES * len(shape)))
    for i in range(0, len(width), step):
        some = slice(i, i + step)
        t = (edges[:-1][some, None] + width[some, None] * node).ravel()[:, None]
        w = (width[some, None] * weight).ravel()
        x = rate * np.exp(t)
        below = np.maximum(gammainc(shape, x), 1e-300)
        density = np.exp(log_scale + shape * t - x)
        mass += (w * below.prod(axis=1)) @ (density / below)
    return np.asarray(mass / mass.sum(), dtype=np.float64)


@functools.cache
def _legendre(n: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights on [0, 1]."""
    node, weight = np.polynomial.legendre.leggauss(n)
    return (node + 1.0) / 2.0, weight / 2.0
