-- Answers sit in the order in which they came, so that a second run over the
-- same records reads them one after the other; only the index on key is at
-- random. The id is never used twice: the index in owned lags behind (see meta)
-- and would take a reused id for one it has. source and inputs are those of the
-- record in subject.
CREATE TABLE answer(
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    key     BLOB NOT NULL UNIQUE,
    subject INTEGER NOT NULL,
    source  INTEGER NOT NULL,
    inputs  BLOB,
    run     INTEGER NOT NULL,
    scoped  INTEGER NOT NULL,
    keep    INTEGER NOT NULL,
    created INTEGER NOT NULL, -- times are milliseconds since 1970
    expires INTEGER NOT NULL, -- 0: never
    text    BLOB NOT NULL     -- see codec.go
) STRICT;

CREATE INDEX answer_scoped ON answer(run) WHERE scoped = 1;

-- The answers of a record. Kept up in bulk, because adding to it with each
-- answer would make Save twice as dear: it holds the answers up to the id in
-- meta 'indexed', and the rest is found by reading answer from there on.
CREATE TABLE owned(
    subject INTEGER NOT NULL,
    answer  INTEGER NOT NULL,
    PRIMARY KEY(subject, answer)
) STRICT, WITHOUT ROWID;

-- Records that were answered by the answer of another record.
CREATE TABLE link(
    subject INTEGER NOT NULL,
    answer  INTEGER NOT NULL,
    source  INTEGER NOT NULL,
    inputs  BLOB,
    run     INTEGER NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY(subject, answer)
) STRICT, WITHOUT ROWID;

CREATE INDEX link_answer ON link(answer);

CREATE TABLE source(
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    job     TEXT NOT NULL,
    version INTEGER NOT NULL,
    model   TEXT NOT NULL,
    options TEXT NOT NULL,
    schema  TEXT NOT NULL,
    prompt  TEXT NOT NULL,
    fields  TEXT NOT NULL, -- JSON
    UNIQUE(job, version, model, options, schema, prompt, fields)
) STRICT;

CREATE TABLE run(
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint BLOB NOT NULL,
    started     INTEGER NOT NULL,
    touched     INTEGER NOT NULL, -- last opened or saved to
    finished    INTEGER,
    job         TEXT NOT NULL,
    args        TEXT NOT NULL, -- JSON
    input       TEXT NOT NULL,
    output      TEXT NOT NULL,
    server      TEXT NOT NULL,
    model       TEXT NOT NULL,
    report      TEXT
) STRICT;

CREATE UNIQUE INDEX run_open ON run(fingerprint) WHERE finished IS NULL;

CREATE TABLE failure(
    run      INTEGER NOT NULL,
    key      BLOB NOT NULL,
    subject  INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    raw      BLOB NOT NULL, -- as answer.text
    attempts INTEGER NOT NULL,
    PRIMARY KEY(run, key, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX failure_subject ON failure(subject);

CREATE TABLE meta(
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('indexed', 0);

-- Numbers to join a blob of many keys with: the i-th key is substr(?1, i*16+1, 16).
-- Of the ways to look up a thousand keys this was the cheapest.
CREATE TABLE seq(i INTEGER PRIMARY KEY) STRICT;

WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i < 1023)
INSERT INTO seq SELECT i FROM c;
