"""Packages that a notebook needs without an import of its own: `df.plot()` needs matplotlib, `read_excel` openpyxl.

Colab has them all, so notebooks do not install them. Each rule names a module that must be imported, a pattern in the
notebook's Python as `ast.unparse` writes it, and what is then needed. A rule that applies by mistake costs a package
too many; none is applied to a notebook that has its own list.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

# (imported module, pattern, projects). An empty pattern applies wherever the module is imported.
_RULES = (
    ("pandas", r"\.(plot|hist|boxplot)\b[.(]", "matplotlib"),
    ("pandas", r"\b(read_excel|to_excel|ExcelWriter|ExcelFile)\(", "openpyxl"),
    ("pandas", r"\bread_excel\(.*\.xls['\"]", "xlrd"),
    ("pandas", r"\b(read|to)_(parquet|feather|orc)\(", "pyarrow"),
    ("pandas", r"(?<!plt)(?<!mpl)(?<!matplotlib)\.style\b(?!\.(use|available|context|library|reload))", "Jinja2"),
    ("pandas", r"\bread_(html|xml)\(", "lxml"),
    ("pandas", r"\.to_markdown\(", "tabulate"),
    ("pandas", r"\b(read_hdf|to_hdf|HDFStore)\(", "tables"),
    ("pandas", r"\b(read_sql\w*|to_sql)\(", "SQLAlchemy"),
    ("pandas", r"\.to_xarray\(", "xarray"),
    ("pandas", r"['\"]gs://", "gcsfs"),
    ("geopandas", r"\.plot\(", "matplotlib"),
    ("geopandas", r"\.explore\(", "folium mapclassify matplotlib"),
    ("xarray", r"\b(open_dataset|open_mfdataset|to_netcdf|load_dataset)\(", "h5netcdf pooch"),
    ("networkx", r"\.draw(_\w+)?\(", "matplotlib"),
    ("networkx", r"\b(pagerank|to_scipy_sparse_array|spring_layout|kamada_kawai_layout)\(", "scipy"),
    ("seaborn", r"\bclustermap\(", "scipy"),
    ("seaborn", r"\b(lowess|logistic|robust)=True", "statsmodels"),
    ("sklearn", r"\bfetch_openml\(|\bas_frame=True", "pandas"),
    ("sklearn", r"\bplot_(tree|partial_dependence|confusion_matrix)\(|Display\b", "matplotlib"),
    ("xgboost", r"\bXGB\w*(Classifier|Regressor|Ranker)\b", "scikit-learn"),
    ("xgboost", r"\bplot_(importance|tree)\(", "matplotlib"),
    ("lightgbm", r"\bLGBM\w*(Classifier|Regressor|Ranker)\b", "scikit-learn"),
    ("lightgbm", r"\bplot_(importance|tree|metric)\(", "matplotlib"),
    ("shap", r"\b(summary_plot|force_plot|plots)\b", "matplotlib"),
    ("sympy", r"\b(plot\w*)\(", "matplotlib"),
    ("skimage.data", "", "pooch"),
    ("scipy.datasets", "", "pooch"),
    ("plotly.express", "", "pandas"),
    ("plotly", r"(?<!plt)(?<!pyplot)\.show\(", "nbformat"),
    ("plotly", r"\bFigureWidget\(", "anywidget"),
    ("bs4", r"BeautifulSoup\(.*['\"](lxml|xml)['\"]", "lxml"),
    ("bs4", r"BeautifulSoup\(.*['\"]html5lib['\"]", "html5lib"),
    ("gymnasium", r"\brender(_mode)?\b", "pygame"),
    ("gym", r"\brender(_mode)?\b", "pygame"),
    ("tqdm.notebook", "", "ipywidgets"),
    ("tqdm.auto", "", "ipywidgets"),
    ("tqdm.keras", "", "ipywidgets"),
    ("keras", r"\b(plot_model|model_to_dot)\(", "pydot"),
    ("keras", r"\b(load_img|img_to_array|array_to_img|image_dataset_from_directory)\(", "pillow"),
    ("keras", r"\bImageDataGenerator\(", "pillow scipy"),
    ("tensorflow", r"\b(plot_model|model_to_dot)\(", "pydot"),
    ("tensorflow", r"\b(load_img|img_to_array|array_to_img|image_dataset_from_directory)\(", "pillow"),
    ("tensorflow", r"\bImageDataGenerator\(", "pillow scipy"),
    ("tensorflow_probability", r"", "tf_keras"),
    ("torch", r"\.numpy\(|\bfrom_numpy\(", "numpy"),
    ("torch.utils.tensorboard", "", "tensorboard"),
    ("transformers", r"return_tensors='pt'|\bpipeline\(|(?<!TF)\bAuto(Model|Image)\w*|\bTrainer\(", "torch"),
    ("transformers", r"return_tensors='tf'|\bTFAuto\w+", "tensorflow"),
    ("transformers", r"\b(Seq2Seq)?(Trainer|TrainingArguments)\(|\bdevice_map=", "accelerate"),
    (
        "transformers",
        r"\b(T5|Llama|XLNet|Albert|Marian|MBart|Pegasus|XLMRoberta|Camembert)Tokenizer\b",
        "sentencepiece",
    ),
    ("transformers", r"\bAutoImageProcessor\b|pipeline\('(image|object|depth|zero-shot-image)", "pillow torchvision"),
    ("diffusers", "", "torch transformers accelerate"),
    ("segment_anything", "", "torch torchvision"),
    ("evaluate", r"\bload\('(accuracy|f1|precision|recall|roc_auc|matthews_correlation|glue|mse|mae)'", "scikit-learn"),
)
_BACKENDS = ("tensorflow", "torch", "jax")
_KERAS = ("keras", "keras_hub", "keras_nlp", "keras_cv", "keras_tuner")


@dataclass(frozen=True)
class Companion:
    """The project `project`, which the use of `module` needs; `because` is what was found, "" for the import alone."""

    project: str
    module: str
    because: str


def companions_of(modules: Collection[str], source: str) -> list[Companion]:
    """Return what the imported `modules` (dotted names) need in the notebook's Python `source`, one of each project.

    Keras needs a backend: the one that the notebook sets as KERAS_BACKEND, else one that it imports, else JAX.
    """
    found: dict[str, Companion] = {}
    for module, pattern, projects in _RULES:
        match = _imported(module, modules) and re.search(pattern, source)
        if match:
            for project in projects.split():
                found.setdefault(project, Companion(project, module, match[0].strip(".( ")))
    keras = next((module for module in _KERAS if _imported(module, modules)), "")
    if keras:
        chosen = re.search(rf"KERAS_BACKEND\W+({'|'.join(_BACKENDS)})\b", source)
        if chosen:
            found.setdefault(chosen[1], Companion(chosen[1], keras, f"KERAS_BACKEND {chosen[1]}"))
        elif not any(_imported(backend, modules) for backend in _BACKENDS):
            found.setdefault("jax", Companion("jax", keras, "no other backend is imported"))
    return list(found.values())


def _imported(module: str, modules: Collection[str]) -> bool:
    return any(one == module or one.startswith(f"{module}.") for one in modules)
