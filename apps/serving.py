"""The browser app's server: which system it shows, where its files are, and what it lets in."""

from __future__ import annotations

import os
import socket
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from apps.browser_app import Setup, build_page
from apps.examples import draw_examples
from apps.gate import Gate
from apps.one_image import Limits
from deployment.latency_profile import load_profile
from prediction.api import ConditionalYOLO
from utils.errors import UserError
from utils.extras import require

HOST = "127.0.0.1"
WAITING = 16  # requests; one is worked on, later ones are told to come again
HERE = Path(__file__).parent


def serve(options: Namespace, demo: Path, ready: Callable[[str], object] | None = None) -> int:
    """Serve until interrupted.

    Args:
        options: of app.py.
        demo: checkpoint of the demo's system, taken where it is there and nothing else is named.
        ready: called with the address once the app answers; then serving ends.

    Raises:
        UserError: something that cannot be used, a port that is taken, or Gradio is missing.
    """
    with tempfile.TemporaryDirectory(prefix="conditional-sr-") as folder:
        uploads = Path(folder) / "gradio"
        uploads.mkdir()
        os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        gradio = require("gradio", "app", "app.py")
        port = free_port(options.port)
        limits = Limits(options.max_pixels, options.max_upload_mb)
        model = chosen_model(options, demo)
        profile = None if options.profile is None else load_profile(options.profile)
        scale = options.scale if model is None else int(model.scale)
        examples = draw_examples(Path(folder) / "examples", scale)
        setup = Setup(model, profile, scale, options.device, options.half, limits, Path(folder) / "shown", examples)
        page = build_page(setup).queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
        gate = (Gate, {"uploads": uploads, "upload_bytes": limits.upload_mb * 1_000_000})
        launch(page, gate, limits, port)
        address = f"http://{HOST}:{port}/"
        print(f"app: {address}, end with Ctrl+C", flush=True)
        try:
            if ready is None:
                page.block_thread()
            else:
                ready(address)
        finally:
            page.close(verbose=False)
            gradio.close_all(verbose=False)
    return 0


def launch(page, gate: tuple, limits: Limits, port: int) -> None:
    """Start the server in the background; nothing beside its page, on this machine only."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    kind, arguments = gate
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),  # no page of another name reads this one
        Middleware(kind, **arguments),
    ]
    page.launch(
        server_name=HOST, server_port=port, share=False, inbrowser=False, prevent_thread_lock=True, quiet=True,
        allowed_paths=[], max_file_size=f"{limits.upload_mb}mb", max_threads=4, state_session_capacity=100,
        ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, run_history=False, footer_links=[],
        show_error=False, strict_cors=True, app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None},
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(HERE / 'zoom.js').read_text(encoding='utf-8')}</script>",
    )  # fmt: skip


def chosen_model(options: Namespace, demo: Path) -> ConditionalYOLO | None:
    """The system that is named, the demo's where none is, None where that is not there."""
    common = {"device": options.device, "half": options.half}
    if options.detector is not None:
        if options.profile is not None:
            raise UserError("--profile belongs to --weights: no latency profile fits --detector")
        return ConditionalYOLO(detector=options.detector, sr=options.sr, scale=options.scale, **common)
    if options.sr is not None:
        raise UserError("--sr stands before --detector; name one")
    if options.weights is not None:
        model = ConditionalYOLO(options.weights, profile=options.profile, **common)
        _ = model.predictor  # says so where the weights hold no detector
        return model
    if options.profile is not None:
        raise UserError("--profile belongs to --weights; name a checkpoint of stage 3")
    return ConditionalYOLO(demo, **common) if demo.is_file() else None


def free_port(port: int) -> int:
    """The port, or any free one for 0. Raises UserError where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: cannot be used ({error}); choose another, or 0 for any") from error
        return probe.getsockname()[1]
