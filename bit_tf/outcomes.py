"""What a model said about N examples, and how good that is.

One class per kind of label: `OneLabel`, `SeveralLabels`, `Numbers`. Each has
`summary()`, a few numbers for a log, and `details()`, everything that goes
into evaluation.json, as JSON types.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bit_tf import metrics

# Pairs of classes in evaluation.json.
PAIRS = 50
# A class is predicted where it is likelier than not.
_THRESHOLD_LOGIT = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OneLabel:
    """Of examples with one label each.

    Args:
        class_names: one per class.
        labels: (N,) true classes.
        predicted: (N,) classes of the largest logit.
        confidence: (N,) probability of the predicted class.
        label_probability: (N,) probability of the true class.
        in_top_k: (N,) 1 where the true class is among the five likeliest,
            else 0.
        losses: (N,) cross-entropies, nats.
        logits: (N, classes), if they were kept and a softmax is taken of them.
    """

    class_names: Sequence[str]
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    label_probability: np.ndarray
    in_top_k: np.ndarray
    losses: np.ndarray
    logits: np.ndarray | None = None

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels

    def summary(self) -> dict:
        """Returns top1 with its 95 % interval, top5, loss and examples."""
        correct, total = int(self.correct.sum()), len(self.labels)
        low, high = metrics.wilson_interval(correct, total)
        return {
            "top1": correct / total,
            "top1_low": low,
            "top1_high": high,
            "top5": int(self.in_top_k.sum()) / total,
            "loss": float(self.losses.mean(dtype=np.float64)),
            "examples": total,
        }

    def details(self) -> dict:
        rows = self.per_class()
        return {
            **self.summary(),
            "correct": int(self.correct.sum()),
            "macro": {
                key: _mean([row[key] for row in rows])
                for key in ("precision", "recall", "f1")
            },
            "per_class": rows,
            "confused": [
                {"true": true, "predicted": predicted, "examples": count}
                for true, predicted, count in self.confused_pairs(PAIRS)
            ],
            "calibration": self.calibration(),
        }

    def per_class(self) -> list[dict]:
        """Returns name, examples, precision, recall and f1 of every class.

        A ratio without a denominator is None: the precision of a class that
        was never predicted, the recall of one without examples.
        """
        classes = len(self.class_names)
        return _per_class(
            self.class_names,
            np.bincount(self.labels, minlength=classes),
            np.bincount(self.predicted, minlength=classes),
            np.bincount(self.labels[self.correct], minlength=classes),
        )

    def calibration(self) -> dict:
        """Returns ece, bins, and temperature with what it makes of ece.

        Without the logits there is no temperature to be found: None.
        """
        error, rows = metrics.calibration(self.confidence, self.correct)
        found = {"ece": error, "bins": rows, "temperature": None}
        if self.logits is None:
            return found
        temperature = metrics.fit_temperature(self.logits, self.labels)
        if temperature is not None:
            cooled = self.logits / temperature
            sure = metrics.softmax(cooled).max(axis=1)
            found["temperature"] = temperature
            found["ece_at_temperature"], _ = metrics.calibration(
                sure, self.correct
            )
            found["loss_at_temperature"] = metrics.cross_entropy(
                cooled, self.labels
            )
        return found

    def confusion(self) -> np.ndarray:
        """Returns (classes, classes) counts: row true, column predicted."""
        classes = len(self.class_names)
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix

    def confused_pairs(self, limit: int) -> list[tuple[str, str, int]]:
        """Returns the most frequent (true, predicted, count) mistakes."""
        wrong = ~self.correct
        pairs, counts = np.unique(
            np.stack([self.labels[wrong], self.predicted[wrong]], axis=1),
            axis=0,
            return_counts=True,
        )
        order = np.argsort(-counts, kind="stable")[:limit]
        return [
            (
                self.class_names[pairs[i, 0]],
                self.class_names[pairs[i, 1]],
                int(counts[i]),
            )
            for i in order
        ]

    def said(self, index: int) -> dict:
        """Returns in words what was said of one example."""
        return {
            "label": self.class_names[self.labels[index]],
            "predicted": self.class_names[self.predicted[index]],
            "confidence": float(self.confidence[index]),
            "correct": bool(self.correct[index]),
        }

    def worst_first(self) -> np.ndarray:
        """Returns the indices of mistakes, the least understandable first."""
        wrong = np.flatnonzero(~self.correct)
        order = np.argsort(self.label_probability[wrong], kind="stable")
        return wrong[order]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SeveralLabels:
    """Of examples that may have several labels.

    Args:
        class_names: one per class.
        hits: (N,) 1 where the likeliest class is a label.
        losses: (N,) sums of cross-entropies over the classes, nats.
        targets: (N, classes) 1 for each label, if they were kept.
        logits: (N, classes), if they were kept.
    """

    class_names: Sequence[str]
    hits: np.ndarray
    losses: np.ndarray
    targets: np.ndarray | None = None
    logits: np.ndarray | None = None

    @property
    def is_complete(self) -> bool:
        return self.logits is not None

    def summary(self) -> dict:
        """Returns map, f1, top1, loss and examples.

        map is the mean over classes of average precision; f1 is of all labels
        together, at a probability of one half; top1 is how often the likeliest
        class is a label, with its 95 % interval. Without the logits there is
        no map and no f1.
        """
        hits, total = int(self.hits.sum()), len(self.hits)
        low, high = metrics.wilson_interval(hits, total)
        found = {}
        if self.is_complete:
            scores = self._average_precision()
            found["map"] = _mean([x for x in scores if not np.isnan(x)])
            predicted = self.logits > _THRESHOLD_LOGIT
            right = int((predicted & (self.targets > 0)).sum())
            found["f1"] = metrics.ratio(
                2 * right, int(predicted.sum()) + int(self.targets.sum())
            )
        return {
            **found,
            "top1": hits / total,
            "top1_low": low,
            "top1_high": high,
            "loss": float(self.losses.mean(dtype=np.float64)),
            "examples": total,
        }

    def details(self) -> dict:
        return {**self.summary(), "per_class": self.per_class()}

    def per_class(self) -> list[dict]:
        """Returns average precision, and the rest at a half, per class."""
        if not self.is_complete:
            return []
        targets = self.targets > 0
        predicted = self.logits > _THRESHOLD_LOGIT
        rows = _per_class(
            self.class_names,
            targets.sum(axis=0),
            predicted.sum(axis=0),
            (targets & predicted).sum(axis=0),
        )
        for row, score in zip(rows, self._average_precision(), strict=True):
            row["average_precision"] = None if np.isnan(score) else float(score)
        return rows

    def _average_precision(self) -> np.ndarray:
        return metrics.average_precision(self.targets > 0, self.logits)

    def said(self, index: int) -> dict:
        if not self.is_complete:
            return {
                "label": "",
                "predicted": "",
                "confidence": None,
                "correct": bool(self.hits[index]),
            }
        logits, targets = self.logits[index], self.targets[index] > 0
        predicted = logits > _THRESHOLD_LOGIT
        return {
            "label": self._names(targets),
            "predicted": self._names(predicted),
            "confidence": None,
            "correct": bool((targets == predicted).all()),
        }

    def _names(self, chosen: np.ndarray) -> str:
        names = [self.class_names[i] for i in np.flatnonzero(chosen)]
        return ", ".join(names) or "nothing"

    def worst_first(self) -> np.ndarray:
        if not self.is_complete:
            return np.flatnonzero(self.hits == 0)
        same = ((self.logits > _THRESHOLD_LOGIT) == (self.targets > 0)).all(1)
        wrong = np.flatnonzero(~same)
        return wrong[np.argsort(-self.losses[wrong], kind="stable")]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Numbers:
    """Of examples whose label is a number.

    Args:
        class_names: one, what the numbers count.
        labels: (N,) true numbers.
        predicted: (N,) predicted ones.
    """

    class_names: Sequence[str]
    labels: np.ndarray
    predicted: np.ndarray

    def summary(self) -> dict:
        """Returns mae, rmse, r2 and examples.

        mae and rmse are the mean absolute and the root mean square error, in
        the labels' own unit; r2 is the share of the labels' variance that is
        explained, None if they do not vary.
        """
        truth = self.labels.astype(np.float64)
        errors = self.predicted.astype(np.float64) - truth
        variance = float(((truth - truth.mean()) ** 2).mean())
        return {
            "mae": float(np.abs(errors).mean()),
            "rmse": float(np.sqrt((errors**2).mean())),
            "r2": 1 - float((errors**2).mean()) / variance
            if variance
            else None,
            "examples": len(truth),
        }

    def details(self) -> dict:
        errors = np.abs(self.predicted - self.labels)
        return {
            **self.summary(),
            "absolute_error_quantiles": {
                f"{q}": float(np.quantile(errors, q / 100))
                for q in (50, 90, 99)
            },
        }

    def said(self, index: int) -> dict:
        return {
            "label": f"{self.labels[index]:.4g}",
            "predicted": f"{self.predicted[index]:.4g}",
            "confidence": None,
            "correct": True,
        }

    def worst_first(self) -> np.ndarray:
        return np.argsort(-np.abs(self.predicted - self.labels), kind="stable")


Outcome = OneLabel | SeveralLabels | Numbers


def _per_class(class_names, examples, predicted, hits) -> list[dict]:
    rows = []
    for index, name in enumerate(class_names):
        n, p, h = map(int, (examples[index], predicted[index], hits[index]))
        rows.append(
            {
                "name": name,
                "examples": n,
                "precision": metrics.ratio(h, p),
                "recall": metrics.ratio(h, n),
                "f1": metrics.ratio(2 * h, n + p),
            }
        )
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of those that there are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
