"""One line that says which run this is."""

from pplr_audit.report.words.quantities import several
from pplr_audit.report.words.vocabulary import cut_words
from pplr_audit.runs.documents import Document


def identity(run: Document) -> str:
    """Data, model, training, cut and seed of a run."""
    clients = len(run["clients"])
    return (
        f"{run['data']['name']}, {run['data']['users']:,} users at {clients} clients; {run['backbone']} with "
        f"{run['recommender']} ({run['layers']} blocks), {run['strategy']} for {several(run['rounds'], 'round')}, cut "
        f"{cut_words(run['cut'])}; seed {run['seed']}, {run['created'].replace('T', ' ')}."
    )
