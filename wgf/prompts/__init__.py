"""The data measure μ: weighted sets of prompts."""

from ._prompts import Prompts as Prompts
from ._regression import linear_regression as linear_regression
from ._table import diabetes as diabetes, from_table as from_table, read_csv as read_csv
