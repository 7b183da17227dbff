"""All that the author of an attack or a defense needs. Import it from here; the modules behind may move."""

from pplr_audit.threat_model.adversaries import SEES, Secret, channels_of
from pplr_audit.threat_model.attack import Active, Attack, Budget, CraftsGradients, CraftsStart, GradientCrafter, Guess
from pplr_audit.threat_model.channels import Channel, Crossing
from pplr_audit.threat_model.defense import ALL, Act, Defense, End, Neighbors, PerSample, Turn, Unit, poisson
from pplr_audit.threat_model.knowledge import Knowledge, Model
from pplr_audit.threat_model.outcomes import BudgetExhausted, Failed, NotApplicable
from pplr_audit.threat_model.questions import QUESTIONS, Question
from pplr_audit.threat_model.recipe import LocalSteps, Recipe
from pplr_audit.threat_model.view import Aggregate, Answer, Record, Update, View

__all__ = [
    "ALL",
    "QUESTIONS",
    "SEES",
    "Act",
    "Active",
    "Aggregate",
    "Answer",
    "Attack",
    "Budget",
    "BudgetExhausted",
    "Channel",
    "CraftsGradients",
    "CraftsStart",
    "Crossing",
    "Defense",
    "End",
    "Failed",
    "GradientCrafter",
    "Guess",
    "Knowledge",
    "LocalSteps",
    "Model",
    "Neighbors",
    "NotApplicable",
    "PerSample",
    "Question",
    "Recipe",
    "Record",
    "Secret",
    "Turn",
    "Unit",
    "Update",
    "View",
    "channels_of",
    "poisson",
]
