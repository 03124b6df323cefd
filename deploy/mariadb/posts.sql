-- The example table of deploy/crossfade.toml, with what crossfade needs of any table.
CREATE TABLE posts (
    id bigint PRIMARY KEY,
    body mediumtext NOT NULL,
    author varchar(200),
    -- Set by crossfade alone, and invisible, so that an INSERT without a column list goes on working.
    crossfade_version bigint NULL INVISIBLE,
    FULLTEXT INDEX posts_full_text (body)
) CHARACTER SET utf8mb4;
