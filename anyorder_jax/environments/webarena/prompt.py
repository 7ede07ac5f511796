"""Prompt: what an agent of WebArena is told before its task."""

from __future__ import annotations

from anyorder_jax.environments.web import calls
from anyorder_jax.environments.webarena.response import STATUSES

SYSTEM = f"""You work on web pages with these calls:
{calls.describe()}
A link or form that names a new tab opens in this one.
End with send_msg_to_user: what was asked for, one text or a JSON list of several; or, where something was to be done \
or shown, {{"task_type": "MUTATE" or "NAVIGATE", "status": "SUCCESS"}}.
Where it cannot be done, "status" is one of {", ".join(STATUSES[1:])}, with "error_details"; \
"task_type" "RETRIEVE" where something was asked for."""
