"""Stand-ins for the data sets and competitions that the notebooks of Kaggle read below `/kaggle/input`.

They are small and random (`made`), with the real sets' names, file names and columns. These are known from the
notebooks' own cells and printed tables; no value is of the real data. `WANTED` says which notebook reads which sets,
`SETS` what each set has. Each is written as one zip archive and published to the run's own hub, so that a notebook
reads it as from Kaggle.
"""

from __future__ import annotations

import fnmatch
import zipfile
import zlib
from itertools import product
from pathlib import Path
from random import Random

from scripts.real_notebooks.made import (
    Column,
    MadeFile,
    days,
    every,
    missing,
    number,
    numbered,
    one_of,
    pictures,
    several,
    table,
    text,
    whole,
)


def _chest() -> dict[str, MadeFile]:
    counts = {"train/NORMAL": 24, "train/PNEUMONIA": 32, "val/NORMAL": 4, "val/PNEUMONIA": 4}
    counts |= {"test/NORMAL": 12, "test/PNEUMONIA": 16}
    found: dict[str, MadeFile] = {}
    for folder, count in counts.items():
        found |= pictures(f"chest_xray/{folder}/IM-{{:04}}.jpeg", count, "L", 150)
    return found


def _houses(with_price: bool) -> MadeFile:
    """The columns of the houses of Ames that Kaggle's courses use."""
    kinds = (
        "MSZoning Street LotShape LandContour Utilities LotConfig LandSlope Neighborhood Condition1 Condition2 BldgType"
        " HouseStyle RoofStyle RoofMatl Exterior1st Exterior2nd ExterQual ExterCond Foundation Heating HeatingQC"
        " CentralAir KitchenQual Functional PavedDrive SaleType SaleCondition"
    )
    kinds_with_gaps = (
        "Alley MasVnrType BsmtQual BsmtCond BsmtExposure BsmtFinType1 BsmtFinType2 Electrical FireplaceQu GarageType"
        " GarageFinish GarageQual GarageCond PoolQC Fence MiscFeature"
    )
    numbers = (
        "MSSubClass LotArea OverallQual OverallCond YearBuilt YearRemodAdd BsmtFinSF1 BsmtFinSF2 BsmtUnfSF TotalBsmtSF"
        " 1stFlrSF 2ndFlrSF LowQualFinSF GrLivArea BsmtFullBath BsmtHalfBath FullBath HalfBath BedroomAbvGr"
        " KitchenAbvGr TotRmsAbvGrd Fireplaces GarageCars GarageArea WoodDeckSF OpenPorchSF EnclosedPorch 3SsnPorch"
        " ScreenPorch PoolArea MiscVal MoSold YrSold"
    )
    numbers_with_gaps = "LotFrontage MasVnrArea GarageYrBlt"
    columns: dict[str, Column] = {"Id": numbered(first=1)}
    columns |= {name: one_of(*"ABCDE") for name in kinds.split()}
    columns |= {name: missing(0.3, one_of(*"ABCDE")) for name in kinds_with_gaps.split()}
    columns |= {name: whole(1, 2000) for name in numbers.split()}
    columns |= {name: missing(0.2, number(0, 2000, 1)) for name in numbers_with_gaps.split()}
    return table(400, columns | ({"SalePrice": whole(50_000, 500_000)} if with_price else {}))


def _strengths(with_failure: bool) -> MadeFile:
    columns: dict[str, Column] = {"id": numbered(), "product_code": one_of(*"ABCDE")}
    columns["loading"] = missing(0.01, number(30, 390, 2))
    columns |= several("attribute_{}", (0, 1), one_of("material_5", "material_6", "material_7", "material_8"))
    columns |= several("attribute_{}", (2, 3), whole(5, 9))
    columns |= several("measurement_{}", range(3), whole(0, 25))
    columns |= several("measurement_{}", range(3, 17), missing(0.02, number(8, 20)))
    columns["measurement_17"] = missing(0.02, number(200, 1200))
    return table(2500, columns | ({"failure": one_of(0, 0, 0, 1)} if with_failure else {}))


def _roads(rows: int, with_risk: bool) -> MadeFile:
    columns: dict[str, Column] = {
        "id": numbered(),
        "road_type": one_of("highway", "rural", "urban"),
        "num_lanes": whole(1, 4),
        "curvature": number(0, 1, 2),
        "speed_limit": one_of(25, 35, 45, 60, 70),
        "lighting": one_of("dim", "daylight", "night"),
        "weather": one_of("foggy", "clear", "rainy"),
        "road_signs_present": one_of(True, False),
        "public_road": one_of(True, False),
        "time_of_day": one_of("morning", "evening", "afternoon"),
        "holiday": one_of(True, False),
        "school_season": one_of(True, False),
        "num_reported_accidents": whole(0, 5),
    }
    return table(rows, columns | ({"accident_risk": number(0, 1, 2)} if with_risk else {}))


def _podcasts(rows: int, with_time: bool) -> MadeFile:
    """Few different names, so that every pair of categories is in every part that a fold trains on."""
    columns: dict[str, Column] = {
        "id": numbered(),
        "Podcast_Name": one_of("Sound Waves", "Joke Junction", "Life Lessons"),
        "Episode_Title": one_of("Episode 3", "Episode 11", "Episode 73"),
        "Episode_Length_minutes": missing(0.1, number(2, 119, 2)),
        "Genre": one_of("Education", "Music", "Comedy"),
        "Host_Popularity_percentage": number(1, 100, 2),
        "Publication_Day": one_of("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        "Publication_Time": one_of("Morning", "Afternoon", "Evening", "Night"),
        "Guest_Popularity_percentage": missing(0.2, number(1, 100, 2)),
        "Number_of_Ads": one_of(0.0, 1.0, 2.0, 3.0),
        "Episode_Sentiment": one_of("Negative", "Neutral", "Positive"),
    }
    return table(rows, columns | ({"Listening_Time_minutes": number(0, 119, 3)} if with_time else {}))


def _passengers(rows: int, first: int, with_survival: bool) -> MadeFile:
    titles = ("Mr", "Mr", "Mr", "Mrs", "Miss", "Miss", "Master", "Dr", "Rev", "Col", "Major", "Capt")
    given_names = ("John", "Mary Anne", "Karl Edvard Johan")
    families = ("Brown", "Hoyt", "Keane", "Sage", "Wick", "Ling")
    names = [f"{name}, {title}. {given}" for name, title, given in product(families, titles, given_names)]
    cabins = [f"{deck}{cabin}" for deck in "ABCDEFGT" for cabin in range(1, 30)]
    tickets = [*range(113_000, 113_080), *range(1600, 1620), "A/5 21171", "PC 17755", "W./C. 6608", "SOTON/O.Q. 3101"]
    columns: dict[str, Column] = {"PassengerId": numbered(first=first)}
    if with_survival:
        columns["Survived"] = one_of(0, 0, 1)
    columns |= {
        "Pclass": one_of(1, 2, 3),
        "Name": one_of(*names),
        "Sex": one_of("male", "female"),
        "Age": missing(0.2, one_of(0.42, 14.5, *range(1, 75), 80)),
        "SibSp": one_of(0, 0, 0, 1, 1, 2, 3, 4, 5, 8),
        "Parch": one_of(0, 0, 0, 1, 2, 3, 4, 5),
        "Ticket": one_of(*tickets),
        "Fare": number(5, 300, 4),
        "Cabin": missing(0.7, one_of(*cabins)),
        "Embarked": one_of("S", "S", "C", "Q"),
    }
    return table(rows, columns)


def _tweets(rows: int, with_target: bool) -> MadeFile:
    columns: dict[str, Column] = {
        "id": numbered(),
        "keyword": missing(0.1, one_of("ablaze", "accident", "storm")),
        "location": missing(0.3, one_of("London", "Lima", "Oslo")),
        "text": text("fire in the hills <b>now</b> storm near my house was great fun 13,000 people", 4, 20),
    }
    return table(rows, columns | ({"target": one_of(0, 1)} if with_target else {}))


_MOVIE_WORDS = (
    "film story actors hilarious loved brilliant amazing perfect wonderful best great worst waste awful bad boring poor"
    " terrible dull scene director music plot ending watched evening 1999 and the it was never <br /> again!"
)
_DISEASES = ("Fungal infection", "Allergy", "GERD", "Diabetes", "Malaria", "Jaundice")
_SYMPTOMS = (
    "itching", " skin_rash", " nodal_skin_eruptions", " dischromic _patches", " high_fever", " vomiting", " fatigue",
    " weight_loss", " restlessness", " nausea", " headache", " chills", " joint_pain", " sweating",
)  # fmt: skip
_BRAIN_FEATURES = (
    "Mean", "Variance", "Standard Deviation", "Entropy", "Skewness", "Kurtosis", "Contrast", "Energy", "ASM",
    "Homogeneity", "Dissimilarity", "Correlation", "Coarseness",
)  # fmt: skip
_PRODUCTS = (
    "Kaggle Advanced Techniques",
    "Kaggle Getting Started",
    "Kaggle Recipe Book",
    "Kaggle for Kids: One Smart Goose",
)

SETS: dict[str, dict[str, MadeFile]] = {
    "kaggle:paultimothymooney/chest-xray-pneumonia": _chest(),
    "kaggle:mlg-ulb/creditcardfraud": {
        "creditcard.csv": table(
            4000,
            {
                "Time": number(0, 172_792, 1),
                **several("V{}", range(1, 29), number(-5, 5, 6)),
                "Amount": number(0, 500, 2),
                "Class": one_of(*[0] * 24, 1),
            },
        )
    },
    "kaggle:c/home-data-for-ml-course": {"train.csv": _houses(True), "test.csv": _houses(False)},
    "kaggle:c/cmi-detect-behavior-with-sensor-data": {
        "test.csv": table(100, {"row_id": numbered(), "sequence_id": one_of("SEQ_1", "SEQ_2"), "acc_x": number(-9, 9)}),
        "test_demographics.csv": table(4, {"subject": numbered("SUBJ_{}"), "age": whole(18, 60)}),
    },
    "kaggle:jakeshbohaju/brain-tumor": {
        "Brain Tumor.csv": table(
            60,
            {
                "Image": numbered("Image{}", 1),
                "Class": one_of(0, 1),
                **dict.fromkeys(_BRAIN_FEATURES, number(0, 10, 6)),
            },
        ),
        **pictures("Brain Tumor/Brain Tumor/Image{}.jpg", 60, "RGB", 240),
    },
    "kaggle:c/tabular-playground-series-aug-2022": {
        "train.csv": _strengths(True),
        "test.csv": _strengths(False),
        "sample_submission.csv": table(2500, {"id": numbered(), "failure": one_of(0)}),
    },
    "kaggle:itachi9604/disease-symptom-description-dataset": {
        "dataset.csv": table(
            300,
            {
                "Disease": one_of(*_DISEASES),
                **several("Symptom_{}", range(1, 4), one_of(*_SYMPTOMS)),
                **several("Symptom_{}", range(4, 18), missing(0.6, one_of(*_SYMPTOMS))),
            },
        ),
        "symptom_Description.csv": every(
            {"Disease": _DISEASES}, {"Description": text("an illness that a doctor should see", 5, 9)}
        ),
        "symptom_precaution.csv": every(
            {"Disease": _DISEASES},
            several("Precaution_{}", range(1, 5), missing(0.1, text("rest exercise eat well drink water", 2, 3))),
        ),
        "Symptom-severity.csv": every({"Symptom": [name.strip() for name in _SYMPTOMS]}, {"weight": whole(1, 7)}),
    },
    "kaggle:someone/quantum": {
        "internship_train.csv": table(800, {**several("{}", range(53), number(0, 500)), "target": number(0, 100)}),
        "internship_hidden_test.csv": table(100, several("{}", range(53), number(0, 500))),
    },
    "kaggle:someone/screen-time-sleep-and-stress-analysis-dataset": {
        "Smartphone_Usage_Productivity_Dataset_50000.csv": table(
            500,
            {
                "User_ID": numbered("U{}", 1),
                "Age": whole(18, 60),
                "Gender": one_of("Male", "Female", "Other"),
                "Occupation": one_of("Professional", "Student", "Business Owner", "Freelancer"),
                "Device_Type": one_of("Android", "iOS"),
                "Daily_Phone_Hours": number(1, 12, 1),
                "Social_Media_Hours": number(0.5, 8, 1),
                "Work_Productivity_Score": whole(1, 10),
                "Sleep_Hours": number(4, 9, 1),
                "Stress_Level": whole(1, 10),
                "App_Usage_Count": whole(5, 60),
                "Caffeine_Intake_Cups": whole(0, 6),
                "Weekend_Screen_Time_Hours": number(2, 14, 1),
            },
        )
    },
    "kaggle:c/playground-series-s5e10": {"train.csv": _roads(400, True), "test.csv": _roads(150, False)},
    "kaggle:c/playground-series-s5e4": {"train.csv": _podcasts(3000, True), "test.csv": _podcasts(500, False)},
    "kaggle:lakshmi25npathi/imdb-dataset-of-50k-movie-reviews": {
        "IMDB Dataset.csv": table(
            1000, {"review": text(_MOVIE_WORDS, 20, 80), "sentiment": one_of("positive", "negative")}
        )
    },
    "kaggle:someone/global-water-consumption-20002025": {
        "global_water_consumption_2000_2025.csv": every(
            {"Country": ("China", "India", "Chile", "Kenya", "Bahrain"), "Year": range(2000, 2026)},
            {
                "Total Water Consumption (Billion m3)": number(10, 770, 2),
                "Per Capita Water Use (L/Day)": number(55, 496, 1),
                "Agricultural Water Use (%)": number(30, 87, 1),
                "Industrial Water Use (%)": number(5, 40, 1),
                "Household Water Use (%)": number(0, 40, 1),
                "Rainfall Impact (mm)": number(100, 3000, 1),
                "Groundwater Depletion Rate (%)": number(0, 6, 2),
                "Water Scarcity Level": one_of("Critical", "High", "Low", "Moderate"),
            },
        )
    },
    "kaggle:c/titanic": {
        "train.csv": _passengers(600, 1, True),
        "test.csv": _passengers(200, 601, False),
        "gender_submission.csv": table(200, {"PassengerId": numbered(first=601), "Survived": one_of(0, 1)}),
    },
    "kaggle:zynicide/wine-reviews": {
        "winemag-data_first150k.csv": table(
            300,
            {
                "": numbered(),
                "country": one_of("US", "Spain", "France", "Italy"),
                "description": text("ripe aromas of fig and cassis with lime and oak", 6, 20),
                "designation": missing(0.3, one_of("Reserve", "Estate")),
                "points": whole(80, 100),
                "price": missing(0.1, number(5, 300, 1)),
                "province": one_of("California", "Piedmont"),
                "region_1": one_of("Napa Valley", "Barolo"),
                "region_2": missing(0.5, one_of("Napa")),
                "variety": one_of("Malbec", "Pinot Noir"),
                "winery": one_of("Old Hill", "New Hill"),
            },
        )
    },
    "kaggle:c/tabular-playground-series-sep-2022": {
        "train.csv": every(
            {
                "date": days("2017-01-01", 150),
                "country": ("Belgium", "France"),
                "store": ("KaggleMart",),
                "product": _PRODUCTS,
            },
            {"num_sold": whole(100, 900)},
        ),
        "test.csv": every(
            {
                "date": days("2021-01-01", 30),
                "country": ("Belgium", "France"),
                "store": ("KaggleMart",),
                "product": _PRODUCTS,
            },
            {},
        ),
    },
    "kaggle:c/nlp-getting-started": {
        "train.csv": _tweets(300, True),
        "test.csv": _tweets(100, False),
        "sample_submission.csv": table(100, {"id": numbered(), "target": one_of(0)}),
    },
}

# Patterns for "owner/name/path" of a notebook, and the sets that it reads.
WANTED = {
    "jideilori/*/chest xray pneumonia/*": ("kaggle:paultimothymooney/chest-xray-pneumonia",),
    "SuBhaduri/*/Classification on Imbalanced Dataset.ipynb": ("kaggle:mlg-ulb/creditcardfraud",),
    "MaoXiao321/*/Intermediate Machine Learning/*": ("kaggle:c/home-data-for-ml-course",),
    "JipWulffele/*/timeseries_classification_CMI/*": ("kaggle:c/cmi-detect-behavior-with-sensor-data",),
    "shivam-199/*/BrainTumorDetection/*": ("kaggle:jakeshbohaju/brain-tumor",),
    "azminewasi/*/binary-classification-different-types.ipynb": ("kaggle:c/tabular-playground-series-aug-2022",),
    "tushar-dobal-cse-ai-ds/*/Disease Prediction System*": ("kaggle:itachi9604/disease-symptom-description-dataset",),
    "KarolBochenek/*/decisiontreeregression.ipynb": ("kaggle:someone/quantum",),
    "lukhi-laksh/*/Screen time & Sleep/*": ("kaggle:someone/screen-time-sleep-and-stress-analysis-dataset",),
    "arec1b0/*/road-accident-risk.ipynb": ("kaggle:c/playground-series-s5e10",),
    "JipWulffele/*/predict_podcast_listening_time/*": ("kaggle:c/playground-series-s5e4",),
    "tushar-dobal-cse-ai-ds/*/sentiment-analysis-nlp/*": ("kaggle:lakshmi25npathi/imdb-dataset-of-50k-movie-reviews",),
    "lukhi-laksh/*/Global Water Consumption/*": ("kaggle:someone/global-water-consumption-20002025",),
    "liopic/*/titanic/*": ("kaggle:c/titanic",),
    "shootmanng/*/Pandas-Course/*": ("kaggle:zynicide/wine-reviews",),
    "azminewasi/*/intro-to-time-series-*": ("kaggle:c/tabular-playground-series-sep-2022",),
    "shivam-199/*/DisasterTweetClassification/*": ("kaggle:c/nlp-getting-started",),
}


def wanted(place: str) -> tuple[str, ...]:
    """The sources of the sets that a notebook, "owner/name/path", reads, such as `kaggle:owner/name`."""
    return next((sets for pattern, sets in WANTED.items() if fnmatch.fnmatchcase(place, pattern)), ())


def write(source: str, folder: Path) -> Path:
    """Write a set as a zip archive into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.rpartition('/')[2]}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, made in SETS[source].items():
            # A generator of its own: a file stays the same when others are added.
            content = made(Random(zlib.crc32(f"{source}/{name}".encode())))
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path
