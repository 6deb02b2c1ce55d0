"""`POST /responses/input_tokens`: the tokens that the model would be given. Nothing is sampled, saved or sent."""

from ore.runs.context import context
from ore.runs.run import Run
from ore.runs.turns import Shared, asked
from ore.tools.base import hosted


async def input_tokens(run: Run, shared: Shared) -> int:
    """By the model's own tokenizer; what `usage.input_tokens` of the same create would say. `run` never begins."""
    target = (await shared.router.route(run.create.model, run.create.input)).first
    run.context = await context(run, shared.store, shared.sealer, hold=False)
    request = asked(run, target, hosted(run.create.tools, shared.tools), shared.sealer)
    return await target.backend.count_tokens(request)
