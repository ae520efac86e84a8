"""Texts by which masking is measured: 200 harmless ones of kinds that notebooks print, and 60 with a secret.

No secret is real: each is drawn from a seeded random generator.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import random
import string
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
URL64 = ALNUM + "-_"
BASE64 = ALNUM + "+/"
_SEED = 20261128


@dataclass(frozen=True)
class Harmless:
    kind: str
    text: str


@dataclass(frozen=True)
class Fake:
    """A text with a secret of some kind in it."""

    kind: str
    text: str
    secret: str


def harmless() -> list[Harmless]:
    draw = random.Random(_SEED)
    return [Harmless(kind, text) for kind, texts in _kinds(draw).items() for text in texts]


def fakes() -> list[Fake]:
    return list(_fakes(random.Random(_SEED)))


def of(draw: random.Random, alphabet: str, length: int) -> str:
    return "".join(draw.choices(alphabet, k=length))


def _md5(draw: random.Random) -> str:
    return hashlib.md5(draw.randbytes(8)).hexdigest()


def _sha1(draw: random.Random) -> str:
    return hashlib.sha1(draw.randbytes(8)).hexdigest()


def _sha256(draw: random.Random) -> str:
    return hashlib.sha256(draw.randbytes(8)).hexdigest()


def _uuid(draw: random.Random) -> str:
    return str(uuid.UUID(int=draw.getrandbits(128), version=4))


def png(draw: random.Random, size: int = 24) -> str:
    """A picture of noise, as base64 of a PNG."""
    pixels = np.frombuffer(draw.randbytes(size * size * 3), np.uint8).reshape(size, size, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def plotly(draw: random.Random) -> dict[str, object]:
    """A figure as plotly writes it, with its numbers in base64."""
    numbers = base64.b64encode(np.array([draw.random() for _ in range(60)]).tobytes()).decode()
    trace = {"type": "scatter", "x": {"dtype": "f8", "bdata": numbers}, "y": [1, 2.5], "marker": {"color": "#636efa"}}
    layout = {"template": {"data": {"bar": [{"error_x": {"color": "#2a3f5f"}}]}}, "title": {"text": "key = value"}}
    return {"data": [trace], "layout": layout, "config": {"plotlyServerURL": "https://plot.ly"}}


def vega() -> dict[str, object]:
    """A chart as Altair writes it."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.20.1.json",
        "data": {"name": "data-c2a3e89ba9d5d1687d5e8c28d630a033"},
        "mark": {"type": "bar"},
        "encoding": {
            "x": {"field": "token", "type": "nominal"},
            "y": {"field": "password_length", "type": "quantitative"},
        },
        "datasets": {"data-c2a3e89ba9d5d1687d5e8c28d630a033": [{"token": "sk-learn", "password_length": 8}]},
    }


def _kinds(draw: random.Random) -> dict[str, list[str]]:
    return {
        "hash after the word key": [
            f"cache key: {_md5(draw)}",
            f"monkey={_md5(draw)}",
            f'"key": "{_md5(draw)}"',
            f"{{'key': '{_md5(draw)}', 'size': 3}}",
            f"key = {_sha1(draw)}",
            f"keys: ['{_md5(draw)}', '{_md5(draw)}']",
            f"primary_key={_md5(draw)}",
            f"Key: {_sha256(draw)}",
            f"api_key_hash: {_md5(draw)}",
            f"lookup key {_md5(draw)} missed, username ada",
            f"public-key {_sha1(draw)}",
            f"cache_key_{_md5(draw)}.pt",
            f"dask key ('sum-{_md5(draw)}', 0, 1)",
            f"{{&quot;key&quot;: &quot;{_md5(draw)}&quot;}}",
        ],
        "hashes": [
            f"{_md5(draw)}  train-00000-of-00004.parquet",
            f"MD5 (images.zip) = {_md5(draw)}",
            "\n".join(f"{_md5(draw)}  {number}.png" for number in range(30)),
            f"{_sha256(draw)}  model.safetensors",
            f"numpy==2.1.3 --hash=sha256:{_sha256(draw)}",
            f"python:3.11@sha256:{_sha256(draw)}",
            f"docker://python:3.11@sha256:{_sha256(draw)}",
            f"oci://registry:5000@sha256:{_sha256(draw)}",
            f"sha512-{base64.b64encode(draw.randbytes(64)).decode()}",
            f'integrity="sha384-{base64.b64encode(draw.randbytes(48)).decode()}"',
            f"SHA256:{base64.b64encode(draw.randbytes(32)).decode().rstrip('=')} ada@host (ED25519)",
            f'ETag: "{_md5(draw)}-5"',
            f"Downloading resnet50-{_sha1(draw)[:8]}.pth",
            f"fingerprint {_sha1(draw).upper()}",
            f"mlflow run {_md5(draw)} finished",
            f"expected {_sha256(draw)}, got {_sha256(draw)}",
        ],
        "git": [
            f"commit {_sha1(draw)}",
            f"HEAD is now at {_sha1(draw)[:7]} Fix typo",
            f"index {_sha1(draw)[:7]}..{_sha1(draw)[:7]} 100644",
            f"git+https://github.com/huggingface/transformers.git@{_sha1(draw)}",
            f"peft @ git+https://github.com/huggingface/peft@{_sha1(draw)}#egg=peft",
            f"  {_sha1(draw)[:7]}..{_sha1(draw)[:7]}  main -> main",
            "git@github.com:pytorch/pytorch.git",
        ],
        "identifiers": [
            _uuid(draw),
            f"Run ID: {_uuid(draw)}",
            f'<div id="{_uuid(draw)}" class="plotly-graph-div">',
            f"model_id: {_md5(draw)}",
            f'"id": "{of(draw, ALNUM, 12)}", "metadata": {{}}',
            f"#scrollTo={of(draw, URL64, 12)}",
            f"wandb: Run data is saved locally in wandb/run-20260712_101500-{of(draw, HEX, 8)}",
            f"https://wandb.ai/ada/cats/runs/{of(draw, HEX, 8)}",
            f"https://drive.google.com/file/d/1{of(draw, URL64, 32)}/view?usp=sharing",
            f"!gdown 1{of(draw, ALNUM, 32)}",
            f"https://docs.google.com/spreadsheets/d/1{of(draw, ALNUM, 43)}/edit#gid=0",
            f"ObjectRef({of(draw, HEX, 56)})",
            "00:1A:2B:3C:4D:5E",
            "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
            "arn:aws:s3:::my-bucket/path/to/object-20261128",
            "projects/my-project-123456/locations/us-central1/endpoints/1234567890123456789",
            "ISBN 978-3-16-148410-0",
            f"data-{_md5(draw)}",
            "gid://shopify/Product/632910392",
            f"request id {of(draw, string.ascii_uppercase + string.digits, 16)}",
        ],
        "base64": [
            f"data:image/png;base64,{png(draw)}",
            f'<img src="data:image/png;base64,{png(draw)}">',
            f"url(data:font/woff2;base64,{base64.b64encode(draw.randbytes(600)).decode()})",
            f'{{"dtype":"f8","bdata":"{base64.b64encode(draw.randbytes(480)).decode()}"}}',
            f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{of(draw, BASE64, 43)} ada@host",
            f"ssh-rsa AAAAB3NzaC1yc2E{of(draw, BASE64, 360)} ada@host",
            f"-----BEGIN CERTIFICATE-----\nMII{of(draw, BASE64, 61)}\n-----END CERTIFICATE-----",
            f"-----BEGIN PUBLIC KEY-----\nMII{of(draw, BASE64, 61)}\n-----END PUBLIC KEY-----",
            'if "-----BEGIN PRIVATE KEY-----" in text and text.strip().endswith("-----END PRIVATE KEY-----"):',
            base64.b64encode(draw.randbytes(3000)).decode(),
            base64.urlsafe_b64encode(draw.randbytes(300)).decode(),
            base64.b64encode(json.dumps({"a": 1, "b": [2, 3], "c": "text"}).encode()).decode(),
            f"https://mermaid.ink/img/{base64.b64encode(json.dumps({'code': 'graph LR; A--B & C'}).encode()).decode()}",
            f"AIza and {base64.b64encode(draw.randbytes(90)).decode()}AIza{of(draw, BASE64, 60)}",
        ],
        "models and packages": [
            "meta-llama/Llama-3.1-8B-Instruct",
            "sentence-transformers/all-MiniLM-L6-v2",
            "hf-internal-testing/tiny-random-LlamaForCausalLM",
            "from huggingface_hub import hf_hub_download, hf_hub_url",
            "stabilityai/stable-diffusion-xl-base-1.0",
            "microsoft/phi-3-mini-4k-instruct-onnx-cpu-int4-rtn-block-32",
            "gpt-4o-mini-2024-07-18, o1-preview-2024-09-12",
            "claude-3-5-sonnet-20241022",
            "scikit-learn==1.5.2",
            "sk-learn-extra-0.3.0-cp311-cp311-manylinux_2_17_x86_64.whl",
            "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl",
            "nvidia-cublas-cu12==12.6.4.1 ; platform_system == 'Linux'",
            "npm_config_registry=https://registry.npmjs.org/",
            "npm warn deprecated inflight@1.0.6: This module is not supported",
            "pypi-attestations-0.0.22.tar.gz",
            "Successfully installed pypi-simple-1.6.0 tokenizers-0.20.3",
            "conda-forge/linux-64::openssl-3.3.2-hb9d3cd8_0",
            "tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized",
            "keras-io/deit-tiny-distilled-patch16-224",
            "gpt2-xl-sk-finetuned-on-slovak-news-articles-2023",
        ],
        "HTML": [
            '<div id="sk-container-id-1" class="sk-top-container">',
            '<input class="sk-toggleable__control sk-hidden--visually" id="sk-estimator-id-1" type="checkbox">',
            "#sk-container-id-12 div.sk-parallel-item:first-child::after",
            '<a class="sk-estimator-doc-link fitted" rel="noreferrer" target="_blank">',
            f'<div id="sk-{_uuid(draw)}" class="sk-top-container">',
            "--sklearn-color-unfitted-level-0: #fff5e6;",
            f'<div id="{of(draw, string.ascii_lowercase, 10)}" style="height:525px; width:100%;"></div>',
            "require(['plotly'], function(Plotly) { window.PLOTLYENV=window.PLOTLYENV || {}; });",
            '<span class="tok-keyword">key</span>: <span class="tok-string">"value"</span>',
            "&lt;token&gt; &amp; &quot;password&quot;",
            '<table border="1" class="dataframe"><thead><tr><th></th><th>token_id</th></tr></thead></table>',
            '<script src="https://cdn.jsdelivr.net/npm/vega@5.30.0/build/vega.min.js"></script>',
            ".sk-spinner-wave-animation-container-with-delay { animation: sk-wave-stretch-delay 1.2s infinite; }",
            f'<svg id="matplotlib-{_md5(draw)}" viewBox="0 0 460 345">',
            "color: #deadbeef; background: #0cc175b9;",
        ],
        "specifications": [
            json.dumps(plotly(draw)),
            json.dumps(vega()),
            html.escape(json.dumps(vega())),
            json.dumps(json.dumps(plotly(draw))),
            f"https://vega.github.io/editor/#/url/vega-lite/N4Ig{of(draw, ALNUM, 300)}",
            json.dumps({"version_major": 2, "version_minor": 0, "model_id": _md5(draw)}),
            json.dumps({"root_ids": [f"p{draw.randrange(9999)}"], "docid": _uuid(draw)}),
        ],
        "numbers": [
            "tensor([[ 0.1257, -0.1321,  0.6404], [ 0.1049, -0.5357,  0.3616]], grad_fn=<AddmmBackward0>)",
            "array([[5.1, 3.5, 1.4, 0.2],\n       [4.9, 3. , 1.4, 0.2]])",
            "\n".join(f"{draw.random():.16f} {draw.random():.16e}" for _ in range(20)),
            "b'\\x89PNG\\r\\n\\x1a\\n\\x00\\x00\\x00\\rIHDR'",
            "0x7f3a5c0d1e2f",
            str(draw.getrandbits(1024)),
            "   token  count\n0    the   1200\n1     of    800",
            "1//0 raises ZeroDivisionError, 7//2 is 3, 4/0A is not a number",
            "2026-11-28T13:05:00.123456+00:00",
        ],
        "sequences": [
            of(draw, "ACDEFGHIKLMNPQRSTVWY", 400),
            "MKVLAAGIVGLCAKIAELLKEHGVDRVEVIRGPSASIAGDPEKLAALLEHHHHHH",
            "AKIAELLKEHGVDRVEVIRGPSA",
            of(draw, "ACGT", 500),
            ">sp|P69905|HBA_HUMAN Hemoglobin subunit alpha OS=Homo sapiens OX=9606 GN=HBA1",
            "CC(=O)OC1=CC=CC=C1C(=O)O InChIKey=BSYNRYMUTXBXSQ-UHFFFAOYSA-N",
        ],
        "URLs": [
            f"https://storage.googleapis.com/download.tensorflow.org/images/{of(draw, ALNUM, 40)}/flower_photos.tgz",
            f"https://huggingface.co/datasets/imdb/resolve/{_sha1(draw)}/plain_text/train-00000-of-00001.parquet",
            f"https://cdn-lfs.huggingface.co/repos/{of(draw, HEX, 2)}/{_sha256(draw)}/{_sha256(draw)}",
            "https://medium.com/@ada.lovelace/how-to-train-a-neural-network-in-10-minutes-3f2a1b4c5d6e",
            "https://www.kaggle.com/code/ada/titanic-tutorial-for-beginners-2024?scriptVersionId=123456789",
            "http://127.0.0.1:8080/@fs/home/ada/index.html",
            "http://localhost:8888/lab/tree/notebooks/key%3Dvalue.ipynb",
            "mongodb://localhost:27017/test",
            "jdbc:postgresql://db.example:5432/shop",
            'f"postgresql://{user}:{password}@{host}:{port}/{name}"',
            '"mysql://%s:%s@%s/%s" % (user, password, host, name)',
            "postgres://$PGUSER:$PGPASSWORD@$PGHOST/app",
            "https://<user>:<password>@example.com/",
            "engine: postgresql://ada:***@db.example/shop",
            "redis://cache:6379/0, amqp://guest@broker:5672",
            "https://doi.org/10.1038/s41586-021-03819-2",
            "doi:10.1145/3292500.3330701",
            "arXiv:1706.03762v7 [cs.CL]",
            "https://www.youtube.com/watch?v=aircAruvnKk&list=PLZHQObOWTQDNU6R1_67000Dx_ZCJB-3pi",
            "https://raw.githubusercontent.com/mwaskom/seaborn-data/master/penguins.csv",
            "https://example.com/a/b?next=%2Fc%2Fd&utm_source=newsletter&utm_campaign=2026-11-token-launch",
            "s3://noaa-goes16/ABI-L1b-RadC/2020/001/00/OR_ABI-L1b-RadC-M6C01_G16_s20200010001.nc",
            "ssh://git@gitlab.com:22/ada/cats.git",
            "https://hooks.slack.com/services/ is where webhooks are",
            "mailto:ada@example.com?subject=key",
        ],
        "language": [
            "tokens: ['[CLS]', 'a', '##b', '[SEP]']",
            "pad_token='<pad>', eos_token_id=50256, unk_token=\"<unk>\"",
            "max_tokens: 4096, total_tokens=1234567",
            "Token indices sequence length is longer than the maximum sequence length of this model (1234 > 512)",
            "special_tokens_map.json, tokenizer_config.json, added_tokens.json",
            "token_type_ids attention_mask input_ids",
            'BPE token "ĠauthorizationĠbearer" -> 4821',
            "The secret of a good password is its length; a token of thanks.",
            "next_page_token: CAUQAA",
            "cancellation_token = CancellationTokenSource.CreateLinkedTokenSource()",
            "access_token: str | None = None, refresh_token: Optional[str]",
            "client_secret=os.environ['CLIENT_SECRET']",
            "aws_secret_access_key=os.environ.get('AWS_SECRET_ACCESS_KEY')",
            "api_key = userdata.get('OPENAI_API_KEY')",
            'api_key="YOUR_API_KEY_GOES_HERE_PLEASE_REPLACE_IT"',
            'headers = {"Authorization": f"Bearer {token}"}',
            'curl -H "Authorization: Bearer $HF_TOKEN" https://api-inference.huggingface.co',
        ],
        "kebab-case": [
            "sk-container-id-1",
            "sk-learn-pipelines-and-column-transformers-explained",
            f"sk-learn-{_md5(draw)}",
            "sk-admin-panel-container-header-title-left-aligned-block",
            "risk-adjusted-returns-of-large-portfolios-2024",
            "disk-usage-and-task-scheduling-on-linux-2026",
            "bodo-glimt-champions-league-2025-qualification",
            "glimt-champions-league-2025-qualification-round",
            "xoxo-gossip-girl-season-2-episode-14",
            "xapp-sn-watcher-2-4-segfault",
            "pplx-and-perplexity-of-language-models-explained-simply",
            "hf_token_classification_with_very_long_names_of_labels",
            "task_test_classificationmodelswithdata",
            "github_path_to_the_repository_of_models",
        ],
        "logs": [
            "key: value",
            "INFO:root:key=value user=ada",
            "Bearer of bad news about characteristics-of-growth",
            "Authorization: Basic authentication is used by default",
            "Basic understanding of Linear Algebra",
            "Enter password: ········",
            "password: must have at least 8 characters",
            "machine learning password reset",
            "the default login page asks for a password again",
            "username: ada, key: press any",
            "AKIA is how ids of access keys begin, ya29. is how Google's tokens do",
            "eyJhbGciOiJIUzI1NiJ9 is a header of a JSON Web Token",
            "Epoch 5/5 ━━━━━━━━━━━━━━━━━━━━ 3s 2ms/step - accuracy: 0.9801 - loss: 0.0657",
            "\x1b[31mKeyError\x1b[0m: 'sk-learn'",
            "[NbConvertApp] Writing 123456 bytes to out.ipynb",
            "W0000 00:00:1732800000.123456    1234 gpu_device.cc:2344] Cannot dlopen some GPU libraries.",
        ],
    }


def _fakes(draw: random.Random) -> Iterator[Fake]:
    def plain(kind: str, secret: str, text: str = "before {} after") -> Fake:
        return Fake(kind, text.format(secret), secret)

    def key(prefix: str, alphabet: str, length: int) -> str:
        return prefix + of(draw, alphabet, length)

    def jwt() -> str:
        parts = [json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps({"sub": of(draw, HEX, 12)})]
        encoded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
        return ".".join([*encoded, of(draw, URL64, 43)])

    upper = string.ascii_uppercase + "234567"
    yield plain("JWT", jwt())
    yield plain("JWT in a header", jwt(), "{{'Authorization': 'Bearer {}'}}")
    yield plain("JWT in a URL", jwt(), "https://db.example/rest/v1/?apikey={}&select=*")
    encrypted = [
        base64.urlsafe_b64encode(b'{"alg":"dir","enc":"A128GCM"}').decode().rstrip("="),
        "",
        of(draw, URL64, 16),
    ]
    yield plain("JWT, encrypted", ".".join([*encrypted, of(draw, URL64, 60), of(draw, URL64, 22)]))
    yield plain("AWS id", key("AKIA", upper, 16))
    yield plain("AWS id of a session", key("ASIA", upper, 16))
    yield plain("AWS secret", of(draw, BASE64, 40), "AWS_SECRET_ACCESS_KEY={}\n")
    yield plain("AWS secret", of(draw, BASE64, 40), 'os.environ["AWS_SECRET_ACCESS_KEY"] = "{}"')
    yield plain("AWS secret in JSON", of(draw, BASE64, 40), '{{"SecretAccessKey": "{}", "Version": 1}}')
    yield plain("AWS secret in JSON in HTML", of(draw, BASE64, 40), "&quot;SecretAccessKey&quot;: &quot;{}&quot;")
    yield plain("AWS secret behind its id", of(draw, BASE64, 40), "AKIA" + of(draw, upper, 16) + ",{}\n")
    yield plain("AWS session", of(draw, BASE64, 300) + "==", "aws_session_token = {}\n")
    yield plain("Google OAuth client", key("GOCSPX-", URL64, 28))
    yield plain("Google refresh token", key("1//0", URL64, 98), "credentials: {}")
    yield plain("Google access token", "ya29.a0" + of(draw, URL64, 160))
    yield plain("Google API key", key("AIza", URL64, 35), "https://maps.example/api/js?key={}&libraries=places")
    yield plain("Google code", key("4/0A", URL64, 69))
    for kind in "pousr":
        yield plain(f"GitHub gh{kind}_", key(f"gh{kind}_", ALNUM, 36))
    yield plain("GitHub fine-grained", key("github_pat_", ALNUM, 22) + "_" + of(draw, ALNUM, 59))
    yield plain("GitHub in an address", key("ghp_", ALNUM, 36), "git clone https://{}@github.com/ada/cats")
    yield plain("GitHub in a traceback", key("ghp_", ALNUM, 36), "\x1b[39m token = \x1b[33m'\x1b[39m\x1b[33m{}\x1b[39m")
    yield plain("GitLab", key("glpat-", URL64, 20))
    yield plain("GitLab runner", key("glrt-", URL64, 20))
    yield plain("npm", key("npm_", ALNUM, 36))
    yield plain("npm's settings", str(uuid.UUID(int=draw.getrandbits(128))), "//registry.npmjs.org/:_authToken={}")
    yield plain("PyPI", key("pypi-AgEIcHlwaS5vcmc", URL64, 160))
    yield plain("Stripe", key("sk_live_", ALNUM, 24))
    yield plain("Stripe, restricted", key("rk_test_", ALNUM, 99))
    yield plain("Slack bot", f"xoxb-{of(draw, '123456789', 12)}-{of(draw, '123456789', 12)}-{of(draw, ALNUM, 24)}")
    yield plain("Slack user", f"xoxp-{of(draw, '123456789', 12)}-{of(draw, '123456789', 12)}-{of(draw, HEX, 32)}")
    yield plain("Slack app", f"xapp-1-A0{of(draw, upper, 9)}-{of(draw, '123456789', 13)}-{of(draw, HEX, 64)}")
    yield plain(
        "Slack webhook",
        f"T0{of(draw, upper, 8)}/B0{of(draw, upper, 8)}/{of(draw, ALNUM, 24)}",
        "https://hooks.slack.com/services/{}",
    )
    yield plain("Databricks", key("dapi", HEX, 32))
    yield plain("SendGrid", "SG." + of(draw, URL64, 22) + "." + of(draw, URL64, 43))
    yield plain("W&B", key("wandb_v1_", ALNUM, 77))
    yield plain("W&B, older", of(draw, HEX, 40), "wandb.login(key='{}')")
    yield plain("W&B by its variable", of(draw, HEX, 40), "%env WANDB_API_KEY={}")
    yield plain("Hugging Face", key("hf_", string.ascii_letters, 34))
    yield plain(
        "Hugging Face in escaped JSON", key("hf_", string.ascii_letters, 34), '"{{\\"text\\": \\"login\\n{}\\"}}"'
    )
    yield plain("OpenAI", key("sk-", ALNUM, 20) + "T3BlbkFJ" + of(draw, ALNUM, 20))
    yield plain("OpenAI, of a project", key("sk-proj-", URL64, 74) + "T3BlbkFJ" + of(draw, URL64, 74))
    yield plain("Anthropic", key("sk-ant-api03-", URL64, 93) + "AA")
    yield plain("Kaggle", key("KGAT_", HEX, 32))
    yield plain("kaggle.json", of(draw, HEX, 32), '{{"username":"ada","key":"{}"}}')
    yield plain("kaggle.json as repr", of(draw, HEX, 32), '{{\'kaggle.json\': b\'{{"username":"ada","key":"{}"}}\'}}')
    yield plain("Kaggle by its variable", of(draw, HEX, 32), "os.environ['KAGGLE_KEY'] = '{}'")
    yield plain("netrc", of(draw, HEX, 40), "machine api.wandb.ai\n  login user\n  password {}\n")
    yield plain("netrc on one line", of(draw, ALNUM, 14), "machine ftp.example login ada password {}")
    yield plain("password in a URL", of(draw, ALNUM, 10), "postgres://ada:{}@db.example/shop")
    yield plain("password in a URL in JSON", of(draw, ALNUM, 10), '{{"dsn": "redis:\\/\\/:{}@cache.example:6379\\/0"}}')
    pair = base64.b64encode(f"ada:{of(draw, ALNUM, 11)}".encode()).decode()
    yield plain("Basic header", pair, "> Authorization: Basic {}")
    yield plain("Bearer header", of(draw, ALNUM, 32) + "7", "sent bearer {} to the server")
    body = "\n".join(of(draw, BASE64, 64) for _ in range(5))
    yield plain("private key", body, "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----")
    yield plain(
        "private key in JSON",
        body.replace("\n", "\\n"),
        '"-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----\\n"',
    )
    yield plain("private key, cut off", body, "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{}")
    yield plain("OAuth client", of(draw, ALNUM, 40) + "1", '"client_secret": "{}"')
