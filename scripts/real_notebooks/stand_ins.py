"""Stand-ins for data that a notebook would download: random, small, and of the same shapes, types and names.

Never imported: `replacements` puts the definitions that a notebook's replaced lines name into its first cell. Each
imports for itself, because what the first cell imports would be installed.
"""

from __future__ import annotations


class stand_in_keras:  # noqa: N801
    def __init__(self, name):
        self.name = name

    def load_data(self, path=None, num_words=10_000, **_):
        import numpy as np

        random = np.random.default_rng(0)

        def half(count):
            labels = random.integers(0, 2 if self.name == "imdb" else 10, count)
            if self.name == "imdb":
                reviews = [list(random.integers(1, num_words, random.integers(20, 200))) for _ in range(count)]
                return np.array([[int(word) for word in review] for review in reviews], dtype=object), labels
            shape = (32, 32, 3) if self.name.startswith("cifar") else (28, 28)
            images = random.integers(0, 256, (count, *shape)).astype("uint8")
            return images, labels.astype("uint8").reshape(-1, 1) if len(shape) == 3 else labels.astype("uint8")

        return half(1000), half(200)

    def get_word_index(self, path=None):
        return {f"word{number}": number for number in range(1, 10_000)}


def stand_in_tfds(name, split=None, batch_size=None, as_supervised=False, with_info=False, **_):
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    side, channels = {"mnist": (28, 1)}.get(name, (256, 3))

    def part(count):
        images = random.integers(0, 256, (count, side, side, channels)).astype("uint8")
        labels = random.integers(0, 2 if channels == 3 else 10, count)
        if batch_size == -1:
            return tf.constant(images), tf.constant(labels)
        return tf.data.Dataset.from_tensor_slices((images, labels))

    names = ("trainA", "trainB", "testA", "testB") if name.startswith("cycle_gan") else ("train", "test")
    found = [part(64) for _ in split] if split else {one: part(8 if side == 256 else 256) for one in names}
    return (found, None) if with_info else found


def stand_in_seaborn(name, **_):
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    columns = {
        "iris": ({"sepal_length": 5.8, "sepal_width": 3.1, "petal_length": 3.8, "petal_width": 1.2}, 150),
        "tips": ({"total_bill": 20.0, "tip": 3.0}, 244),
        "planets": ({"orbital_period": 2000.0, "mass": 2.6, "distance": 260.0}, 1035),
    }
    numbers, count = columns[name]
    frame = pd.DataFrame({column: mean * random.uniform(0.5, 1.5, count) for column, mean in numbers.items()})
    if name == "iris":
        frame["species"] = np.repeat(["setosa", "versicolor", "virginica"], 50)
    if name == "tips":
        for column, values in {
            "sex": ["Male", "Female"],
            "smoker": ["Yes", "No"],
            "day": ["Thur", "Fri", "Sat", "Sun"],
            "time": ["Lunch", "Dinner"],
        }.items():
            frame[column] = pd.Categorical(random.choice(values, count), categories=values)
        frame["size"] = random.integers(1, 7, count)
    if name == "planets":
        frame["method"] = random.choice(["Radial Velocity", "Transit", "Imaging"], count)
        frame["number"] = random.integers(1, 8, count)
        frame["year"] = random.integers(1990, 2015, count)
    return frame


def stand_in_openml(rows=1200):
    import types

    import numpy as np

    random = np.random.default_rng(0)
    data = random.integers(0, 256, (rows, 784)).astype("int64")
    return types.SimpleNamespace(data=data, target=random.integers(0, 10, rows).astype(str))


def stand_in_torch_mnist(root=None, train=True, download=False, transform=None):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0 if train else 1)
    images = random.integers(0, 256, (640 if train else 128, 28, 28)).astype("uint8")
    return [
        (transform(Image.fromarray(image)) if transform else Image.fromarray(image), int(random.integers(10)))
        for image in images
    ]


def stand_in_picture(name, *_, **__):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (213, 320, 3)).astype("uint8")).save(name, "JPEG")
    return name


def stand_in_marathon(path=None, **given):
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)

    def times(least, most):
        return [
            f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
            for second in random.integers(least, most, 2000)
        ]

    frame = pd.DataFrame({"age": random.integers(16, 90, 2000), "gender": random.choice(["M", "W"], 2000)})
    frame["split"], frame["final"] = times(4000, 9000), times(9001, 20_000)
    for column, convert in given.get("converters", {}).items():
        frame[column] = frame[column].map(convert)
    return frame


class stand_in_learntools:  # noqa: N801
    """The `binder` of Kaggle's courses, and each question of an exercise: it takes every answer."""

    def bind(self, names):
        names.update({f"{stem}{number}": self for stem in ("q", "q_", "step_") for number in range(1, 21)})

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def check(self):
        print("Not checked.")

    hint = solution = assert_check_passed = check
