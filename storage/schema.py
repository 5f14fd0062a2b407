"""The lake's tables, one per noun, as append-only numbered migrations. Each runs in one transaction
together with its record.

Every noun has `version` (the dataset version a row belongs to) and `id` (the version, a dash, the
row's place in it). Never edit a migration that has been released: append one. `{lake}` is the name
under which the lake is attached.
"""

NOUNS = ("prompts", "completions", "verdicts", "acceptances", "pairs", "models", "metrics")

# How files are written. Small row groups: one row is read without the rest.
PARQUET = "COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 16384"

_V1 = """
CREATE TABLE versions (
    version VARCHAR,             -- digest of (step, code, parameters, parents' versions), 16 hexadecimal digits
    kind VARCHAR,                -- the noun it holds
    step VARCHAR,                -- the step that made it
    state VARCHAR,               -- 'open' while rows arrive, then 'complete'; 'dropped' once its rows have been freed as garbage
    parameters VARCHAR,          -- JSON object: the step's parameters (open shape: every step has its own)
    code VARCHAR,                -- digest of the step's source and of all it calls
    rows BIGINT,                 -- rows of its kind, null while open
    seconds DOUBLE,              -- wall time spent on it, over all attempts that committed a chunk
    flow_run_id VARCHAR,         -- Prefect flow run that completed it
    task_run_id VARCHAR,         -- Prefect task run that completed it
    opened_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ
);
CREATE TABLE edges (
    child VARCHAR,               -- version that was made
    parent VARCHAR,              -- version it was made from
    role VARCHAR                 -- the parameter of the step through which it went in
);
CREATE TABLE chunks (
    version VARCHAR,
    chunk INTEGER,               -- number of the chunk within its version, committed together with its rows
    rows BIGINT,
    seconds DOUBLE,              -- wall time spent on the chunk
    committed_at TIMESTAMPTZ
);
CREATE TABLE prompts (
    version VARCHAR, id VARCHAR,
    digest VARCHAR,              -- sha256 of the prompt's text: recognises it across versions
    prompt VARCHAR,              -- the user's turn
    source VARCHAR,              -- where it came from: file and line
    split VARCHAR,               -- 'train' or 'held_out'
    parents VARCHAR[]            -- ids of the prompts it was generated from (self-instruct), else empty
);
CREATE TABLE completions (
    version VARCHAR, id VARCHAR,
    prompt_id VARCHAR,
    sample INTEGER,              -- 0 .. n-1 within its prompt
    policy VARCHAR,              -- model version that sampled it
    text VARCHAR,
    token_ids INTEGER[],         -- as sampled, with the end-of-sequence token where it was sampled
    logprobs FLOAT[],            -- nats per token, raw: at temperature 1 over the whole vocabulary
    finish_reason VARCHAR,       -- 'stop', 'length' (truncated) or 'refused' (not sampled: see note)
    seed BIGINT,                 -- of this row's random stream
    note VARCHAR                 -- why it was refused
);
CREATE TABLE verdicts (
    version VARCHAR, id VARCHAR,
    prompt_id VARCHAR,
    completion_id VARCHAR,
    other_id VARCHAR,            -- the completion it was compared with; null for a score
    judge VARCHAR,               -- model version or name of the judge
    outcome VARCHAR,             -- 'scored', or a comparison: 'win', 'lose', 'tie'; or 'invalid', 'refused', 'over_budget'
    score DOUBLE,                -- a score in the judge's unit, or the probability that completion_id wins; null when there is none
    note VARCHAR                 -- why there is no score
);
CREATE TABLE acceptances (
    version VARCHAR, id VARCHAR,
    prompt_id VARCHAR,
    completion_id VARCHAR,
    reward DOUBLE,               -- the score it was accepted or rejected on; null when it had none
    accepted BOOLEAN,
    sweep INTEGER,               -- the pass over the candidates in which it was accepted, from 0; null when it was not
    note VARCHAR                 -- why it could not take part: duplicate, invalid, too_few_candidates, ...
);
CREATE TABLE pairs (
    version VARCHAR, id VARCHAR,
    prompt_id VARCHAR,
    chosen_id VARCHAR,           -- completion; null for preferences that came from a file
    rejected_id VARCHAR,
    prompt VARCHAR,
    chosen VARCHAR,
    rejected VARCHAR,
    margin DOUBLE,               -- score of chosen minus score of rejected, in the judge's unit
    rating VARCHAR,              -- how much better, in people's words: 'significantly', 'better', 'slightly', 'negligible'
    source VARCHAR,              -- pairing rule, or file and line
    dropped VARCHAR              -- null for a pair to train on, else why not: tie, identical, truncated, invalid, ...
);
CREATE TABLE models (
    version VARCHAR, id VARCHAR,
    name VARCHAR,                -- as a person calls it
    role VARCHAR,                -- 'policy', 'reward', 'ranker' or 'endpoint'
    parent VARCHAR,              -- model version it was trained from; null for a model from outside
    reference VARCHAR,           -- model version its loss was taken against; null when there was none
    path VARCHAR,                -- directory of the weights, relative to the lake's root; null for a model from outside
    digest VARCHAR,              -- sha256 over weights, configuration and tokenizer
    recipe VARCHAR               -- JSON object: what it was trained with (open shape)
);
CREATE TABLE metrics (
    version VARCHAR, id VARCHAR,
    subject VARCHAR,             -- the version it says something about
    name VARCHAR,
    step BIGINT,                 -- optimiser step, null for a figure of the whole
    value DOUBLE,
    low DOUBLE, high DOUBLE,     -- 95 % interval, null when there is none
    unit VARCHAR
);
"""

_PARTITIONED = """
CREATE TEMP TABLE held AS FROM "{noun}";
DELETE FROM "{noun}";
ALTER TABLE "{noun}" SET PARTITIONED BY (version);
CALL {{lake}}.set_option('data_inlining_row_limit', 0, table_name => '{noun}');
INSERT INTO "{noun}" SELECT * FROM held ORDER BY version, id;
DROP TABLE held;
"""

# Each version gets files of its own, so that one is found, merged, checked and dropped without
# touching another.
_V2 = (
    """
CALL {lake}.set_option('parquet_compression', 'zstd');
CALL {lake}.set_option('parquet_compression_level', 1);
CALL {lake}.set_option('parquet_row_group_size', 16384);
"""
    + "".join(_PARTITIONED.format(noun=noun) for noun in NOUNS)
    + """
CALL {lake}.set_option('data_inlining_row_limit', 1000, table_name => 'edges');
CREATE TABLE files (
    version VARCHAR,
    path VARCHAR,                -- Parquet file, relative to the data directory; or models/..., relative to the lake's root
    bytes BIGINT,
    sha256 VARCHAR               -- over the whole file, written down when the version was completed
);
CREATE TABLE runs (
    run VARCHAR,                 -- Prefect flow run of `align`
    recipe VARCHAR,
    settings VARCHAR,            -- JSON object: the recipe with every choice (open shape)
    state VARCHAR,               -- 'running', 'done', 'failed' (see note) or 'stopped'
    note VARCHAR,                -- why it failed
    host VARCHAR,
    process BIGINT,              -- id of the process on that host
    code VARCHAR,                -- version of dapflow
    started_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ
);
CREATE TABLE iterations (
    run VARCHAR,
    iteration INTEGER,           -- from 1
    policy VARCHAR,              -- model version it made, whether in this run or in an earlier one
    metrics VARCHAR,             -- version with its figures
    ended_at TIMESTAMPTZ
);
"""
)

# An open version's rows are files beside the lake until it is complete; what was written the old
# way is made again.
_V3 = "".join(
    f'DELETE FROM "{noun}" WHERE version IN (SELECT version FROM versions WHERE state = '
    "'open');\n"
    for noun in NOUNS
) + ("DELETE FROM versions WHERE state = 'open';\nDROP TABLE chunks;\n")

_V4 = """
ALTER TABLE pairs ADD COLUMN probability DOUBLE;  -- the judge's probability that chosen is better, 0.5 to 1; null where it is certain
CREATE TABLE reference_logps (
    model VARCHAR,               -- digest of the weights, as in models
    dtype VARCHAR,               -- in which they were run
    key VARCHAR,                 -- digest of the token ids of a prompt and all its answers
    answer INTEGER,              -- which of them, from 0
    logp DOUBLE                  -- log p(answer | prompt), nats, summed over its tokens
);
"""

# A table that the same transaction has made takes no options.
_V5 = "CALL {lake}.set_option('data_inlining_row_limit', 1000, table_name => 'reference_logps');"

_V6 = """
ALTER TABLE verdicts ADD COLUMN forward DOUBLE;   -- of a comparison: the probability that completion_id is better, asked with it first
ALTER TABLE verdicts ADD COLUMN backward DOUBLE;  -- the same probability of whatever stood first, asked with other_id first
CREATE TABLE calls (
    call VARCHAR,                -- journal, a dash, its number in it
    journal VARCHAR,             -- the file it was written down in before it came here
    key VARCHAR,                 -- digest of all that decides the answer, which recognises a call that has been paid for
    version VARCHAR,             -- dataset version that it was made for
    model VARCHAR,
    attempt INTEGER,             -- from 1, within one process
    request VARCHAR,             -- JSON object, as it was sent
    answer VARCHAR,              -- as it came, usable or not; null when none came
    error VARCHAR,               -- why it was no answer; 'killed' when the process died with the call under way; null for an answer
    tokens_in BIGINT,            -- as the server counted, else the most that it can have been
    tokens_out BIGINT,
    usd DOUBLE,                  -- what it cost, the most that it can have where the server has not said; null when the price is not known
    seconds DOUBLE,              -- how long the answer took
    sent_at TIMESTAMPTZ
);
"""

_V7 = """
CREATE TABLE questions (
    key VARCHAR,                 -- digest of the person, what they are asked for, the prompt and both answers in whichever order
    version VARCHAR,             -- dataset version of verdicts that waits for the answer
    run VARCHAR,                 -- Prefect flow run that asked, to be resumed
    person VARCHAR,
    instruction VARCHAR,         -- what the person is asked for, null for which answer is better
    prompt VARCHAR,
    first VARCHAR,
    second VARCHAR,
    asked_at TIMESTAMPTZ
);
CREATE TABLE labels (
    key VARCHAR,                 -- of the question; its newest row counts
    label VARCHAR,               -- 'first' or 'second' of the question is better, 'tie', 'skip', or 'undo': as if never answered
    left_side VARCHAR,           -- which of the two stood left, or above: 'first' or 'second'
    seconds DOUBLE,              -- from the moment it was shown
    labelled_at TIMESTAMPTZ
);
CREATE TABLE batches (           -- jobs of a provider's batch interface; the calls in them are in `calls` once they are answered
    tag VARCHAR,                 -- ours, which the server was given too, written down before it was
    batch VARCHAR,               -- the server's id; null until it has told one
    version VARCHAR,             -- dataset version that its calls are made for
    server VARCHAR,
    model VARCHAR,
    keys VARCHAR[],              -- of its calls
    state VARCHAR,               -- 'open', 'done' once its answers are in the ledger, or 'lost': the server never had it, or failed it
    submitted_at TIMESTAMPTZ
);
"""

_V8 = "".join(
    f"CALL {{lake}}.set_option('data_inlining_row_limit', 1000, table_name => '{table}');\n"
    for table in ("questions", "labels", "batches")
)

_V9 = """
ALTER TABLE runs ADD COLUMN command VARCHAR;   -- the one that does the same again; null for a run of an older version
ALTER TABLE runs ADD COLUMN software VARCHAR;  -- JSON object: the machine, Python and the libraries that decide results, with their versions
"""

_V10 = """
CREATE TABLE promotions (
    number BIGINT,               -- from 1, over the whole lake: the newest row of a line says which policy it has got to
    line VARCHAR,                -- digest of the model that the line began with
    action VARCHAR,              -- 'promote' or 'keep' as the gate decided, or 'promote by hand', 'roll back'
    policy VARCHAR,              -- model version that the line has from here on; of 'keep' the one before
    candidate VARCHAR,           -- model version that was put to the gate, or chosen by hand; of 'keep' empty where none was made
    previous VARCHAR,            -- model version before; null where it was the model that the line began with
    slice BIGINT,                -- iteration whose prompts it took; null by hand
    recipe VARCHAR,
    run VARCHAR,                 -- Prefect flow run; null by hand
    metrics VARCHAR,             -- version with the candidate's figures
    figures VARCHAR,             -- JSON object: the figures that the gate read, by name: [value, low, high]
    reason VARCHAR,              -- in a sentence
    decided_at TIMESTAMPTZ
);
CREATE TABLE promotion_turn (number BIGINT);  -- the number of the newest promotion: whoever adds one changes it, so that two cannot
INSERT INTO promotion_turn VALUES (0);
"""

_V11 = (
    "ALTER TABLE metrics ADD COLUMN note VARCHAR;  -- why there is no value, or what to know "
    "before believing it"
)

_V12 = """
ALTER TABLE prompts ADD COLUMN answer VARCHAR;    -- the right answer, for a judge that needs one; null where nobody has said it
ALTER TABLE prompts ADD COLUMN unsafe BOOLEAN;    -- whether it was marked as one that a safe answer matters for; null where nobody has said
"""

_V13 = (
    "ALTER TABLE prompts ADD COLUMN earlier VARCHAR[];  -- the turns before it: the user's, the "
    "answer, and so on; null for a first turn"
)

_V14 = (
    "ALTER TABLE versions ADD COLUMN activity VARCHAR;  -- what the step does "
    "(tasks/step/work.py); null where older software made it"
)

_V15 = (
    "ALTER TABLE prompts ADD COLUMN constraints VARCHAR;  -- JSON list: what a program can verify "
    "of an answer (tasks/prompts/constraints.py); null where nobody has said"
)

MIGRATIONS: tuple[str, ...] = (
    _V1,
    _V2,
    _V3,
    _V4,
    _V5,
    _V6,
    _V7,
    _V8,
    _V9,
    _V10,
    _V11,
    _V12,
    _V13,
    _V14,
    _V15,
)
