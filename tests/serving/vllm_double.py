"""A small HTTP server that speaks the routes of vLLM that lorad uses; run as a child. It says back what it was asked."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ARGS = dict(zip(sys.argv[1::1], sys.argv[2::1], strict=False))
LOADED = {ARGS["--served-model-name"]}
DIE, SLOW = 31, 32  # token ids that make it die, or talk without end


class Routes(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._say(200, "")

    def do_POST(self) -> None:
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            return self._say(401, "no key")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            if not os.path.exists(os.path.join(asked["lora_path"], "adapter_model.safetensors")):
                return self._say(404, "no adapter there")
            LOADED.add(asked["lora_name"])
            return self._say(200, "Success")
        if self.path == "/v1/unload_lora_adapter":
            known = asked["lora_name"] in LOADED
            LOADED.discard(asked["lora_name"])
            return self._say(200 if known else 404, "")
        if asked["model"] not in LOADED:
            return self._say(404, json.dumps({"error": {"message": "no such model"}}))
        if DIE in asked["prompt"]:
            os._exit(9)
        if "prompt_logprobs" in asked:
            shift = 0.1 * sorted(LOADED).index(asked["model"])
            told = [None, *({str(id): {"logprob": -shift - 0.5, "rank": 1}} for id in asked["prompt"][1:])]
            return self._say(200, json.dumps({"choices": [{"text": "x", "prompt_logprobs": told}]}))
        return self._stream(asked)

    def _stream(self, asked: dict[str, Any]) -> None:
        self._say(200, "", end=False)
        words = [f"[{asked['model'][:6]}]", *(f" {key}={asked[key]}" for key in ("temperature", "top_k", "seed", "stop") if key in asked)]
        limit = 10**9 if SLOW in asked["prompt"] else min(asked["max_tokens"], len(words))
        for place in range(limit):
            token = f"token_id:{40 + place % 10}"
            told = {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [{token: -0.5}]}
            self._event({"choices": [{"text": words[place % len(words)], "logprobs": told, "finish_reason": None}]})
        self._event({"choices": [{"text": "", "finish_reason": "length" if limit < len(words) else "stop"}]})
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": limit, "prompt_tokens_details": {"cached_tokens": 2}}
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        self.wfile.flush()

    def _say(self, status: int, text: str, end: bool = True) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        self.end_headers()
        if end:
            self.wfile.write(text.encode())


ThreadingHTTPServer((ARGS["--host"], int(ARGS["--port"])), Routes).serve_forever()
