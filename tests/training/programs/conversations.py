"""What a user meets around a named fit, in one process; prints what came of each as one JSON object.

Run as `python conversations.py FOLDER`. A line of a conversation that raises is noted as "Class: message".
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import lean  # noqa: F401 - before Keras
import numpy as np

import haversack
from haversack.training.devices import import_keras

keras = import_keras()
from haversack.training.keras import fit as training  # noqa: E402 - Keras's backend is chosen before
from haversack.training.keras import session  # noqa: E402

FOLDER = Path(sys.argv[1])
RUNS = Path(os.environ["HAVERSACK_DATA"]) / "runs"
X = np.random.default_rng(7).random((40, 4), dtype="float32")
Y = X.sum(axis=1, keepdims=True)
session.RHYTHM = session.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)


def model(units=3, optimizer="adam"):
    keras.utils.set_random_seed(3)
    built = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dropout(0.2)])
    built.add(keras.layers.Dense(1))
    built.compile(optimizer, "mse")
    return built


def fit(trained, x=X, y=Y, *, name=None, epochs=3, **arguments):
    arguments = {"batch_size": 8, "verbose": 0, **arguments}
    return haversack.fit(trained, x, y, name=name, epochs=epochs, **arguments)


def numbers(trained):
    return [float(number) for weight in trained.get_weights() for number in np.ravel(weight)]


def said(do):
    """What was written to standard error, or the error that was raised."""
    with contextlib.redirect_stderr(io.StringIO()) as written:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - whatever it is, a test wants to see it
            return f"{type(error).__name__}: {error}"
    return written.getvalue()


class At(keras.callbacks.Callback):
    """Does something once, after a number of batches."""

    def __init__(self, batch, do):
        super().__init__()
        self.left, self.do = batch, do

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.do()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def interrupted_by_hand():
    trained, raised = model(), ""
    try:
        fit(trained, name="hand", callbacks=[At(7, interrupt)])
    except KeyboardInterrupt as error:
        raised = type(error).__name__
    log = (RUNS / "hand" / "log.jsonl").read_text().splitlines()
    words = said(lambda: fit(trained, name="hand"))
    return {
        "raised": raised,
        "outcome": json.loads(log[-1])["outcome"],
        "said": words,
        "handler": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "later": len(fit(trained, epochs=1).history["loss"]),
    }


def interrupted_equals_unbroken():
    trained, unbroken = model(), model()
    keras.utils.set_random_seed(5)
    with contextlib.suppress(KeyboardInterrupt):
        fit(trained, name="cut", callbacks=[At(7, interrupt)])
    fit(trained, name="cut", callbacks=[At(0, interrupt)])
    keras.utils.set_random_seed(5)
    fit(unbroken, name="whole", callbacks=[At(0, interrupt)])
    return {"same": numbers(trained) == numbers(unbroken), "epochs": trained.history.epoch}


def more_epochs():
    grown, unbroken = model(), model()
    keras.utils.set_random_seed(5)
    fit(grown, name="grown", epochs=2)
    again = said(lambda: fit(model(), name="grown", epochs=2))
    history = fit(grown, name="grown", epochs=4).history["loss"]
    keras.utils.set_random_seed(5)
    expected = fit(unbroken, name="at once", epochs=4).history["loss"]
    return {"again": again, "same": history == expected and numbers(grown) == numbers(unbroken)}


def fewer_epochs():
    """Interrupted in epoch 3 of 4, then asked for less than that."""
    trained, again = model(), model()
    with contextlib.suppress(KeyboardInterrupt):
        fit(trained, name="fewer", epochs=4, callbacks=[At(12, interrupt)])
    words = said(lambda: fit(again, name="fewer", epochs=2))
    return {
        "said": words,
        "same": numbers(again) == numbers(trained),
        "epochs": again.history.epoch,
        "sessions": len(haversack.runs.show("fewer").sessions),
        "later": fit(again, name="fewer", epochs=4).epoch,
    }


def finished_in_another_model():
    first, second = model(), model()
    history = fit(first, name="finished").history
    loaded = fit(second, name="finished").history
    return {"same": numbers(first) == numbers(second), "history": history == loaded}


def changed():
    fit(model(), name="changed")
    return {
        "model": said(lambda: fit(model(units=5), name="changed", epochs=4)),
        "optimizer": said(lambda: fit(model(optimizer="sgd"), name="changed", epochs=4)),
        "data": said(lambda: fit(model(), X + 1, name="changed", epochs=4)),
        "rows": said(lambda: fit(model(), X[:30], Y[:30], name="changed", epochs=4)),
        "rounding": said(lambda: fit(model(), X + np.float32(1e-6), name="changed", epochs=4)),
        "batch size": said(lambda: fit(model(), name="changed", epochs=5, batch_size=4)),
    }


def restarted():
    old, new = model(), model()
    fit(old, name="again")
    history = fit(new, X + 1, name="again", restart=True).history["loss"]
    return {"epochs": len(history), "kept": (RUNS / "again.before-1" / "log.jsonl").exists()}


def restarted_in_another_store(store="memory://store", name="far"):
    """The machine is a new one after each training: what the store has is all there is."""
    fit(model(), name=name, where=store)
    shutil.rmtree(RUNS / name)
    old = [checkpoint.id for checkpoint in haversack.Checkpoints(name, store).all()]
    fit(model(), X + 1, name=name, where=store, restart=True)
    shutil.rmtree(RUNS / name)
    new = [checkpoint.id for checkpoint in haversack.Checkpoints(name, store).all()]
    again = said(lambda: fit(model(), X + 1, name=name, where=store))
    before = [checkpoint.id for checkpoint in haversack.Checkpoints(f"{name}.before-1", store).all()]
    return {"kept": set(before) == set(old) != set(), "new": not set(new) & set(old), "again": again}


def restarted_on_a_drive():
    os.environ["HAVERSACK_HUB"] = "embedded"
    try:
        return restarted_in_another_store("drive://runs", "driven")
    finally:
        del os.environ["HAVERSACK_HUB"]


def restarted_in_a_job():
    """A cell that restarts a run is executed once more in every session of its job, and restarts it once."""
    calls = ["cell-1", "cell-1", "cell-2"]
    training.name_unnamed(lambda: calls.pop(0))
    fit(model(), name="job")
    with contextlib.suppress(KeyboardInterrupt):
        fit(model(), name="job", restart=True, callbacks=[At(7, interrupt)])
    words = said(lambda: fit(model(), name="job", restart=True))
    fit(model(), name="job", restart=True)
    training.name_unnamed(lambda: None)
    return {"said": words, "kept": sorted(path.name for path in RUNS.glob("job.before-*"))}


def restarted_without_a_run():
    fit(model(), name="fresh", restart=True)
    return {"kept": [path.name for path in RUNS.glob("fresh.before-*")]}


def where_the_disk_goes():
    """On Kaggle, whose disk goes with the session, with a hub and without."""
    os.environ["KAGGLE_KERNEL_RUN_TYPE"] = "Interactive"
    words = {
        "first": said(lambda: fit(model(), name="here")),
        "second": said(lambda: fit(model(), name="here too")),
        "told": said(lambda: fit(model(), name="there", where=FOLDER / "elsewhere")),
    }
    del os.environ["KAGGLE_KERNEL_RUN_TYPE"]
    return words


def on_another_machine():
    """Nothing of the run is left here but what is in the other store."""
    first, second = model(), model()
    history = fit(first, name="moved", where="memory://store").history
    shutil.rmtree(RUNS / "moved")
    loaded = fit(second, name="moved", where="memory://store").history
    return {"same": numbers(first) == numbers(second) and history == loaded}


def cut_off_before_the_first_save():
    """A log that is appended to begins anew with the run, and keeps what was there before it."""
    session.RHYTHM = session.Rhythm(first=1000.0, shortest=1000.0, longest=1000.0)
    for name in ("appended", "overwritten"):
        (FOLDER / f"{name}.csv").write_text("epoch,loss\n0,before\n")

    def stop():
        raise RuntimeError

    for callback in (At(12, stop), At(0, stop)):
        logs = [keras.callbacks.CSVLogger(FOLDER / "appended.csv", append=True)]
        logs.append(keras.callbacks.CSVLogger(FOLDER / "overwritten.csv"))
        with contextlib.suppress(RuntimeError):
            fit(model(), name="early", callbacks=[*logs, callback])
    session.RHYTHM = session.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)
    rows = {name: (FOLDER / f"{name}.csv").read_text().splitlines() for name in ("appended", "overwritten")}
    return {name: [row.split(",")[0] for row in lines] for name, lines in rows.items()}


def sources_that_only_go_forward():
    def batches():
        while True:
            yield X[:8], Y[:8]

    words = {}
    trained = model()
    words["generator"] = said(lambda: fit(trained, batches(), None, name="forward", steps_per_epoch=2, batch_size=None))
    words["trained"] = len(trained.history.history["loss"])
    words["saved"] = (RUNS / "forward").exists()
    return words


def left_out():
    backup = keras.callbacks.BackupAndRestore(FOLDER / "backup")
    words = said(lambda: fit(model(), name="backup", callbacks=[backup]))
    return {"said": words, "used": (FOLDER / "backup").exists()}


def without_a_name():
    before = sorted(RUNS.iterdir())
    fit(model())
    return {"saved": sorted(RUNS.iterdir()) != before}


def terminated():
    """SIGTERM, held until the state is saved; what it did before is done then."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    trained = model()
    session.RHYTHM = session.Rhythm(first=1000.0, shortest=1000.0, longest=1000.0)
    fit(trained, name="terminated", callbacks=[At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    session.RHYTHM = session.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)
    signal.signal(signal.SIGTERM, before)
    events = [json.loads(line) for line in (RUNS / "terminated" / "log.jsonl").read_text().splitlines()]
    first_save = next(event for event in events if event["event"] == "save")
    return {"came": len(came), "saved at": [first_save["epoch"], first_save["step"]]}


def with_moving_averages_twice():
    trained = model(optimizer=keras.optimizers.SGD(0.01, use_ema=True))
    fit(trained, name="averages")
    return {"losses": len(fit(trained, name="averages again").history["loss"])}


def settings_that_are_changed_between_sessions():
    stopping = keras.callbacks.EarlyStopping("loss", patience=50)
    fit(model(), name="patience", callbacks=[stopping])
    other = keras.callbacks.EarlyStopping("loss", patience=7)
    fit(model(), name="patience", epochs=5, callbacks=[other])
    return {"patience": other.patience, "best": other.best is not None}


def not_started_by_us():
    haversack.Checkpoints("foreign").save(1, {"weights": X}, wait=True)
    return {"said": said(lambda: fit(model(), name="foreign"))}


def nothing_can_be_written_for_a_while():
    """From the 4th batch on files may not grow, as on a full disk, until a save has failed for it."""
    free = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Mend(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(0.05)
            if "is retried" in sys.stderr.getvalue():
                resource.setrlimit(resource.RLIMIT_FSIZE, free)

    full = At(4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, free[1])))
    trained, again = model(), model()
    words = said(lambda: fit(trained, name="full", callbacks=[full, Mend()]))
    fit(again, name="full")
    return {"said": words, "epochs": len(trained.history.epoch), "saved": numbers(again) == numbers(trained)}


def data_with_holes():
    """Numbers that are none, inputs by name, JAX's arrays."""
    keras.utils.set_random_seed(3)
    inputs = {"left": keras.Input((3,), name="left"), "right": keras.Input((1,), name="right")}
    trained = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values()))))
    trained.compile("adam", "mse")
    x = {"left": X[:, :3].copy(), "right": keras.ops.convert_to_tensor(X[:, 3:])}
    x["left"][3] = np.nan
    words = said(lambda: fit(trained, x, name="holes", epochs=1))
    return {"said": words, "resumed": said(lambda: fit(trained, x, name="holes", epochs=2))}


def in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(model(), name="thread").epoch))
    thread.start()
    thread.join()
    return {"epochs": found[0]}


def the_folder_is_refused():
    (RUNS / "refused").mkdir(parents=True)
    (RUNS / "refused" / "checkpoints").write_text("in the way")
    return {"said": said(lambda: fit(model(), name="refused"))}


def progress():
    printed = {}
    for verbose in (0, 1, 2):
        with contextlib.redirect_stdout(io.StringIO()) as written:
            fit(model(), name=f"progress {verbose}", epochs=1, verbose=verbose)
        printed[verbose] = written.getvalue()
    return printed


def predicted(trained):
    return [float(one).hex() for one in np.ravel(trained.predict(X, batch_size=40, verbose=0))]


def exported():
    """Weights and models as files of Keras's own, and what the trained model predicts with them."""
    trained = model(optimizer=keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5))
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=0.05, restore_best_weights=True)
    fit(trained, name="exported", epochs=20, callbacks=[stopping])
    moments = np.random.get_state()[1].tolist()
    for ending in ("weights.h5", "keras"):
        haversack.runs.export("exported", FOLDER / f"exported.{ending}")
    kept = moments == np.random.get_state()[1].tolist()
    steps = [checkpoint.step for checkpoint in haversack.Checkpoints("exported").all()]
    haversack.runs.export("exported", FOLDER / "step.keras", checkpoint=steps[0])
    one_epoch = model()
    fit(one_epoch, name="one epoch", epochs=1)
    haversack.runs.export("one epoch", FOLDER / "best.keras", checkpoint="best")
    given = model(optimizer=keras.optimizers.Adam(use_ema=True))
    haversack.runs.export("exported", FOLDER / "given.weights.h5", model=given)
    return {
        "predicted": predicted(trained),
        "best": predicted(one_epoch),
        "stopped": stopping.stopped_epoch > 0,
        "streams": kept,
        "given": predicted(given),
        "refused": {
            "ending": said(lambda: haversack.runs.export("exported", FOLDER / "exported.h5")),
            "step": said(lambda: haversack.runs.export("exported", FOLDER / "none.keras", checkpoint=9999)),
            "name": said(lambda: haversack.runs.export("nobody", FOLDER / "none.keras")),
            "model": said(lambda: haversack.runs.export("exported", FOLDER / "none.keras", model=model(units=5))),
            "optimizer": said(lambda: haversack.runs.export("exported", FOLDER / "none.keras", model=model())),
        },
        "left": sorted(file.name for file in FOLDER.glob("*.keras")) + [file.name for file in FOLDER.glob(".*")],
    }


def exported_without_a_configuration():
    class Own(keras.Model):
        def __init__(self, units):
            super().__init__()
            self.inner = keras.layers.Dense(units)

        def call(self, inputs):
            return self.inner(inputs)

    trained, again = Own(1), Own(1)
    trained.compile("adam", "mse")
    again.compile("adam", "mse")
    fit(trained, name="own", epochs=1)
    words = said(lambda: haversack.runs.export("own", FOLDER / "own.weights.h5"))
    again.predict(X, verbose=0)
    haversack.runs.export("own", FOLDER / "own.weights.h5", model=again)
    return {"said": words, "same": numbers(trained) == numbers(again)}


def a_session_that_ends_soon():
    """Nothing is due in it but what its end asks for."""
    rhythm, session.RHYTHM = session.RHYTHM, session.Rhythm(first=1000.0, shortest=1000.0, longest=1000.0)
    os.environ["HAVERSACK_SESSION_ENDS"] = str(time.time() + 3)
    slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.4))
    try:
        fit(model(), name="soon", epochs=2, callbacks=[slow])
    finally:
        session.RHYTHM = rhythm
        del os.environ["HAVERSACK_SESSION_ENDS"]
    return haversack.runs.show("soon").sessions[0].saves


CONVERSATIONS = [
    interrupted_by_hand,
    interrupted_equals_unbroken,
    more_epochs,
    fewer_epochs,
    finished_in_another_model,
    changed,
    restarted,
    restarted_in_another_store,
    restarted_on_a_drive,
    restarted_in_a_job,
    restarted_without_a_run,
    where_the_disk_goes,
    on_another_machine,
    cut_off_before_the_first_save,
    sources_that_only_go_forward,
    left_out,
    without_a_name,
    terminated,
    with_moving_averages_twice,
    settings_that_are_changed_between_sessions,
    not_started_by_us,
    nothing_can_be_written_for_a_while,
    data_with_holes,
    in_a_thread,
    the_folder_is_refused,
    progress,
    exported,
    exported_without_a_configuration,
    a_session_that_ends_soon,
]

if __name__ == "__main__":
    only = sys.argv[2:]
    talks = [talk for talk in CONVERSATIONS if not only or talk.__name__ in only]
    print(json.dumps({talk.__name__: talk() for talk in talks}))
