"""Measuring models, collections and vectors of any origin."""

from lookalike.deploy.evaluation.attributes import AttributeReport, evaluate_attributes
from lookalike.deploy.evaluation.data import (
    LabeledImages,
    MnistData,
    collection_images,
    lfw_behind,
    open_labeled,
)
from lookalike.deploy.evaluation.denoising import (
    CleanResult,
    DenoisingModel,
    DenoisingReport,
    DenoisingResult,
    InputNoise,
    Method,
    evaluate_denoisers,
    evaluate_denoising,
    open_test_set,
    open_test_sets,
    require_skimage,
)
from lookalike.deploy.evaluation.fit_data import (
    ScoredImages,
    encode_examples,
    find_people,
    measure_people,
    read_scored_images,
    scored_folders,
)
from lookalike.deploy.evaluation.generation import (
    GenerationBenchmark,
    GenerationPlan,
    Part,
    digit_classifier,
    evaluate_generation,
)
from lookalike.deploy.evaluation.pairs import Folds, held_out_people, lfw_folds, read_folds, sample_folds
from lookalike.deploy.evaluation.reliability import Reliability, cross_validate, plot_reliability
from lookalike.deploy.evaluation.report import (
    attribute_lines,
    denoising_lines,
    denoising_sheet,
    generation_lines,
    plot_roc,
    plot_trade_off,
    retrieval_table,
    verification_table,
)
from lookalike.deploy.evaluation.retrieval import Ranking, rank_all, temporary_collection
from lookalike.deploy.evaluation.vectors import (
    EvaluationTable,
    embed_images,
    read_parquet_vectors,
    stored_vectors,
)
from lookalike.deploy.evaluation.verification import evaluate_pairs

__all__ = [
    "AttributeReport",
    "CleanResult",
    "DenoisingModel",
    "DenoisingReport",
    "DenoisingResult",
    "EvaluationTable",
    "Folds",
    "GenerationBenchmark",
    "GenerationPlan",
    "InputNoise",
    "LabeledImages",
    "Method",
    "MnistData",
    "Part",
    "Ranking",
    "Reliability",
    "ScoredImages",
    "attribute_lines",
    "collection_images",
    "cross_validate",
    "denoising_lines",
    "denoising_sheet",
    "digit_classifier",
    "embed_images",
    "encode_examples",
    "evaluate_attributes",
    "evaluate_denoisers",
    "evaluate_denoising",
    "evaluate_generation",
    "evaluate_pairs",
    "find_people",
    "generation_lines",
    "held_out_people",
    "lfw_behind",
    "lfw_folds",
    "measure_people",
    "open_labeled",
    "open_test_set",
    "open_test_sets",
    "plot_reliability",
    "plot_roc",
    "plot_trade_off",
    "rank_all",
    "read_folds",
    "read_parquet_vectors",
    "read_scored_images",
    "require_skimage",
    "retrieval_table",
    "sample_folds",
    "scored_folders",
    "stored_vectors",
    "temporary_collection",
    "verification_table",
]
