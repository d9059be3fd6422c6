#!/usr/bin/env python3
"""The usual recipe: a thread pool of four that posts each row of a CSV to /api/generate.

This is what Millrace is measured against. It is written as people write it, with Python's own library only, and it
is treated fairly: it asks for the same schema with the same options, and its rows come out in order.

    python3 bench/usual_recipe.py --url http://127.0.0.1:11434 --model llama3.1:8b \
        --prompt 'Review of {product}: {review}' --schema "$(cat schema.json)" in.csv out.csv
"""
import argparse
import csv
import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor


def ask(args, schema, row):
    body = {
        "model": args.model,
        "prompt": args.prompt.format(**row),
        "system": args.system,
        "format": schema,
        "stream": False,
        "options": {"temperature": 0, "seed": 1, "num_predict": args.max_tokens},
    }
    request = urllib.request.Request(
        args.url.rstrip("/") + "/api/generate",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            reply = json.load(response)
        answer = json.loads(reply["response"])
        return {key: answer.get(key) for key in schema["properties"]}, reply.get("eval_count", 0)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        print(f"row lost: {error}", file=sys.stderr)
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:11434")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", required=True, help="with {column} where the row's value goes")
    parser.add_argument("--system", default="")
    parser.add_argument("--schema", required=True, help="JSON Schema of the answer")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("input")
    parser.add_argument("output")
    args = parser.parse_args()
    schema = json.loads(args.schema)

    start = time.perf_counter()
    with open(args.input, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    with ThreadPoolExecutor(args.workers) as pool:
        answers = list(pool.map(lambda row: ask(args, schema, row), rows))
    lost = tokens = 0
    with open(args.output, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, fieldnames=list(rows[0]) + list(schema["properties"]))
        writer.writeheader()
        for row, answer in zip(rows, answers):
            if answer is None:
                lost += 1
                continue
            tokens += answer[1]
            writer.writerow({**row, **answer[0]})
    seconds = time.perf_counter() - start
    print(json.dumps({
        "records": len(rows),
        "answered": len(rows) - lost,
        "requests": len(rows),
        "seconds": round(seconds, 3),
        "records_per_second": round(len(rows) / seconds, 2),
        "completion_tokens": tokens,
    }))


if __name__ == "__main__":
    main()
