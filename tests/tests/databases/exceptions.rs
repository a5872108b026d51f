//! Databases that their server would refuse to create again: the replacement has all rows, and lacks only what the
//! exceptions list.

use insta::assert_snapshot;
use rekindle_tests::fixtures::protected_groups::change_settings;
use serde_json::json;
use shared::report::exceptions::{Exception, ExceptionsRecord};

use super::dump::{assert_same, differences, dump};
use super::{APPLICATION, Scenario};

impl Scenario {
    /// Returns the exceptions of all restores, in the order of their objects' keys.
    pub(super) fn exceptions(&self) -> Vec<Exception> {
        let standin = &self.protected.standin;
        let keys = standin.s3().keys(standin.bucket(), "backups/").unwrap();
        let keys = keys.iter().filter(|key| key.contains("/exceptions/"));
        let records = keys.map(|key| {
            let bytes = standin.s3().read(standin.bucket(), key).unwrap();
            serde_json::from_slice::<ExceptionsRecord>(&bytes).unwrap()
        });
        records.flat_map(|record| record.exceptions).collect()
    }

    /// Returns each exception with its remedy, as a text.
    fn exceptions_with_remedies(&self) -> String {
        let texts = self.exceptions().into_iter().map(|one| {
            let remedy = one.remedy.trim_end().replace('\n', "\n  ");
            format!("{}\n  {remedy}\n", one.text())
        });
        texts.collect()
    }
}

/// Runs a script on a new node, replaces the node, and returns the lines of the dump that differ.
async fn replaced(script: &str) -> (Scenario, String) {
    let mut scenario = Scenario::start(|_| {}).await;
    scenario.run(script).await;
    let before = dump(&scenario.node).await;
    scenario.back_up().await;
    scenario.replace_node().await;
    let different = differences(&before, &dump(&scenario.node).await);
    // Empty lines and comments surround each object.
    let different = different.into_iter().filter(|line| {
        let line = line.split_once(' ').map_or("", |(_, line)| line);
        !line.is_empty() && !line.starts_with("--")
    });
    (scenario, different.collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_whose_function_does_not_find_another_is_an_exception() {
    let script = r"
CREATE DATABASE shop;
\connect shop
CREATE EXTENSION unaccent;
CREATE FUNCTION f_slug(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS
 $$ BEGIN RETURN lower(unaccent(value)); END $$;
CREATE TABLE product (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
INSERT INTO product (name) VALUES ('Crème Brûlée'), ('Öl & Essig');
CREATE INDEX product_slug ON product (f_slug(name));
COMMENT ON INDEX product_slug IS 'by slug';
";
    let (scenario, different) = replaced(script).await;
    assert_snapshot!(different, @r#"
    -1 COMMENT ON INDEX public.product_slug IS 'by slug';
    -1 CREATE INDEX product_slug ON public.product USING btree (public.f_slug(name));
    "#);
    assert_snapshot!(scenario.exceptions_with_remedies(), @r#"
    INDEX public.product_slug in database shop: ERROR: function unaccent(text) does not exist (SQLSTATE 42883)
      CREATE INDEX product_slug ON public.product USING btree (public.f_slug(name));
    COMMENT INDEX product_slug in schema public in database shop: ERROR: relation "public.product_slug" does not exist (SQLSTATE 42P01)
      COMMENT ON INDEX public.product_slug IS 'by slug';
    "#);
    // The replacement can be backed up.
    scenario.back_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_violate_a_foreign_key_are_restored_and_the_key_is_not_validated() {
    let script = r#"
CREATE DATABASE tracker;
\connect tracker
CREATE TABLE users (id int PRIMARY KEY);
CREATE TABLE "re mind" (id int PRIMARY KEY, user_id int, CONSTRAINT "its ""user""" FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE);
INSERT INTO users SELECT generate_series(1, 20); INSERT INTO "re mind" SELECT i, i FROM generate_series(1, 20) i;
CREATE TABLE doubled (id int); INSERT INTO doubled VALUES (1), (2);
CREATE UNIQUE INDEX doubled_once ON doubled (id);
UPDATE pg_index SET indisunique = false, indisready = false WHERE indexrelid = 'doubled_once'::regclass;
INSERT INTO doubled VALUES (2);
UPDATE pg_index SET indisunique = true, indisready = true WHERE indexrelid = 'doubled_once'::regclass;
SET session_replication_role = replica; DELETE FROM users WHERE id = 7; RESET session_replication_role;
"#;
    let (scenario, different) = replaced(script).await;
    assert_snapshot!(different, @r#"
    +1     ADD CONSTRAINT "its ""user""" FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE NOT VALID;
    -1     ADD CONSTRAINT "its ""user""" FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
    -1 CREATE UNIQUE INDEX doubled_once ON public.doubled USING btree (id);
    "#);
    assert_snapshot!(scenario.exceptions_with_remedies(), @r#"
    INDEX public.doubled_once in database tracker: ERROR: could not create unique index "doubled_once" (SQLSTATE 23505)
      CREATE UNIQUE INDEX doubled_once ON public.doubled USING btree (id);
    FK CONSTRAINT public.re mind its "user" in database tracker: ERROR: insert or update on table "re mind" violates foreign key constraint "its "user"" (SQLSTATE 23503)
      ALTER TABLE ONLY public."re mind" VALIDATE CONSTRAINT "its ""user""";
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_materialized_view_over_a_server_that_is_away_stays_empty() {
    let script = r"
CREATE DATABASE geo;
\connect geo
CREATE EXTENSION postgres_fdw;
CREATE TABLE parcel (id int PRIMARY KEY, owner text); INSERT INTO parcel SELECT i, 'owner ' || i FROM generate_series(1, 100) i;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '9', dbname 'x');
CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (user 'x', password 'y');
CREATE FOREIGN TABLE owner (id int, name text) SERVER elsewhere;
CREATE MATERIALIZED VIEW parcel_owner AS SELECT p.id, o.name FROM parcel p LEFT JOIN owner o USING (id) WITH NO DATA;
CREATE MATERIALIZED VIEW named AS SELECT name FROM parcel_owner WITH NO DATA;
CREATE INDEX named_name ON named (name);
UPDATE pg_class SET relispopulated = true WHERE relname IN ('parcel_owner', 'named');
";
    let (scenario, different) = replaced(script).await;
    assert_snapshot!(different, @r#"
    -1 REFRESH MATERIALIZED VIEW public.named;
    -1 REFRESH MATERIALIZED VIEW public.parcel_owner;
    "#);
    assert_snapshot!(scenario.exceptions_with_remedies(), @r#"
    MATERIALIZED VIEW DATA public.parcel_owner in database geo: ERROR: could not connect to server "elsewhere" (SQLSTATE 08001)
      REFRESH MATERIALIZED VIEW public.parcel_owner;
    MATERIALIZED VIEW DATA public.named in database geo: ERROR: materialized view "parcel_owner" has not been populated (SQLSTATE 55000)
      REFRESH MATERIALIZED VIEW public.named;
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_a_dropped_role_and_of_a_former_superuser_are_exceptions() {
    let script = r"
CREATE ROLE monitoring; CREATE ROLE reader;
CREATE DATABASE crm;
\connect crm
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO monitoring;
CREATE EXTENSION pg_stat_statements;
GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO reader;
CREATE TABLE contact (id int); INSERT INTO contact VALUES (1);
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM monitoring;
DROP OWNED BY monitoring;
\connect postgres
DROP OWNED BY monitoring;
DROP ROLE monitoring;
CREATE ROLE cms LOGIN SUPERUSER; CREATE DATABASE cms OWNER cms;
\connect cms
SET ROLE cms;
CREATE TABLE page (id int PRIMARY KEY); INSERT INTO page VALUES (1);
CREATE PUBLICATION cdc FOR ALL TABLES;
CREATE FUNCTION notify_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_notify('ddl', tg_tag); END $$;
CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION notify_ddl();
RESET ROLE;
ALTER ROLE cms NOSUPERUSER;
";
    let (scenario, different) = replaced(script).await;
    assert_snapshot!(different, @r#"
    -1 ALTER EVENT TRIGGER watch OWNER TO cms;
    +1 ALTER EVENT TRIGGER watch OWNER TO postgres;
    -1 REVOKE ALL ON FUNCTION public.pg_stat_statements_reset(userid oid, dbid oid, queryid bigint) FROM "16384";
    "#);
    assert_snapshot!(scenario.exceptions_with_remedies(), @r#"
    EVENT TRIGGER OWNER watch in database cms: ERROR: permission denied to change owner of event trigger "watch" (SQLSTATE 42501)
      ALTER EVENT TRIGGER watch OWNER TO "cms";
    ACL FUNCTION pg_stat_statements_reset(userid oid, dbid oid, queryid bigint) in schema public in database crm: ERROR: role "16384" does not exist (SQLSTATE 42704)
      REVOKE ALL ON FUNCTION public.pg_stat_statements_reset(userid oid, dbid oid, queryid bigint) FROM "16384";
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_a_newer_server_does_not_know_are_exceptions() {
    let script = r"
CREATE ROLE legacy LOGIN; CREATE DATABASE erp;
ALTER DATABASE erp SET work_mem = '5MB'; ALTER ROLE legacy SET work_mem = '6MB';
UPDATE pg_db_role_setting SET setconfig = '{work_mem=5MB,operator_precedence_warning=off}'
  WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = 'erp');
UPDATE pg_db_role_setting SET setconfig = '{operator_precedence_warning=off,work_mem=6MB}' WHERE setrole = 'legacy'::regrole;
\connect erp
CREATE TABLE t (n int); INSERT INTO t VALUES (1);
";
    let (scenario, different) = replaced(script).await;
    assert_snapshot!(different, @r#"
    -1 ALTER DATABASE erp SET operator_precedence_warning TO 'off';
    -1 ALTER ROLE legacy SET operator_precedence_warning TO 'off';
    "#);
    assert_snapshot!(scenario.exceptions_with_remedies(), @r#"
    ROLE SETTING operator_precedence_warning of legacy: ERROR: unrecognized configuration parameter "operator_precedence_warning" (SQLSTATE 42704)
      ALTER ROLE legacy SET operator_precedence_warning TO 'off';
    DATABASE SETTING operator_precedence_warning in database erp: ERROR: unrecognized configuration parameter "operator_precedence_warning" (SQLSTATE 42704)
      ALTER DATABASE "erp" SET "operator_precedence_warning" TO 'off';
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_is_reported_everywhere_and_never_a_reason_for_an_older_backup() {
    let mut scenario = Scenario::start(|_| {}).await;
    let first = "CREATE TABLE users (id int PRIMARY KEY);
        CREATE TABLE reminder (id int PRIMARY KEY, user_id int REFERENCES users);
        INSERT INTO users SELECT generate_series(1, 20); INSERT INTO reminder SELECT i, i FROM generate_series(1, 20) i;";
    scenario.run(first).await;
    scenario.back_up().await;
    let second = "CREATE TABLE orders (id int); INSERT INTO orders SELECT generate_series(1, 500);
        SET session_replication_role = replica; DELETE FROM users WHERE id = 7;";
    scenario.run(second).await;
    let manifest = scenario.back_up().await;
    scenario.replace_node().await;
    let client = scenario
        .node
        .cluster()
        .unwrap()
        .connect("postgres")
        .await
        .unwrap();
    let orders = client
        .query_one("SELECT count(*) FROM orders", &[])
        .await
        .unwrap();
    assert_eq!(orders.get::<_, i64>(0), 500);

    let line = scenario
        .protected
        .wait_for_failure(APPLICATION, "RestoreExceptions")
        .await
        .unwrap();
    assert_eq!(
        line.backup_id.as_deref(),
        Some(manifest.index.backup_id.as_str())
    );
    assert!(
        line.contains("FK CONSTRAINT public.reminder reminder_user_id_fkey in database postgres"),
        "{line}"
    );
    let list = json!({"rekindle": "list-backups", "application": APPLICATION});
    let answer = scenario.protected.invoke("backup", list).await.unwrap();
    assert_eq!(answer["backups"][0]["exceptions"]["count"], 1, "{answer}");
    assert!(answer["backups"][1].get("exceptions").is_none(), "{answer}");
    // The restored key is not validated, so the next restore has no exception.
    scenario.back_up().await;
    let before = dump(&scenario.node).await;
    scenario.replace_node().await;
    assert_same(&before, &dump(&scenario.node).await);
    assert_eq!(scenario.exceptions().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_can_be_refused() {
    let scenario = Scenario::start(|node| {
        change_settings(node, "[postgres]", "[postgres]\nexceptions = \"refuse\"").unwrap();
    })
    .await;
    let script = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a);
        SET session_replication_role = replica; INSERT INTO b VALUES (1);";
    scenario.run(script).await;
    scenario.back_up().await;
    let standin = &scenario.protected.standin;
    standin.kill_instance(scenario.node.id()).await.unwrap();
    let line = scenario
        .protected
        .wait_for_failure(APPLICATION, "ExceptionsRefused")
        .await
        .unwrap();
    let suspended = "abandoned the launch; the group launches nothing for now";
    assert_eq!(line.message, suspended);
    assert!(
        line.contains("FK CONSTRAINT public.b b_id_fkey in database postgres: ERROR: "),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_check_or_a_function_refuses_for_now_are_restored() {
    let script = r"
CREATE DATABASE shop;
\connect shop
CREATE EXTENSION unaccent;
CREATE FUNCTION slug(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$ BEGIN RETURN lower(unaccent(value)); END $$;
CREATE TABLE product (name text NOT NULL, slug text GENERATED ALWAYS AS (slug(name)) STORED);
INSERT INTO product (name) VALUES ('Crème Brûlée'), ('Öl & Essig');
CREATE TABLE z_allowed (id int); INSERT INTO z_allowed VALUES (1), (2), (3);
CREATE FUNCTION is_allowed(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.z_allowed WHERE id = $1)';
CREATE DOMAIN allowed AS int CONSTRAINT listed CHECK (is_allowed(VALUE));
COMMENT ON CONSTRAINT listed ON DOMAIN allowed IS 'it''s listed';
CREATE TABLE a_user (id int, other allowed, CONSTRAINT known CHECK (is_allowed(id)), CHECK (id > 0) NOT VALID);
COMMENT ON CONSTRAINT known ON a_user IS 'known';
INSERT INTO a_user VALUES (1, 2), (2, 3);
CREATE TABLE a_part (id int, CONSTRAINT of_part CHECK (is_allowed(id))) PARTITION BY RANGE (id);
CREATE TABLE a_part_1 PARTITION OF a_part FOR VALUES FROM (0) TO (9);
INSERT INTO a_part VALUES (3);
CREATE MATERIALIZED VIEW users AS SELECT count(*) FROM a_user;
CREATE TABLE b_gone (id int CHECK (is_allowed(id))); INSERT INTO b_gone VALUES (3);
DELETE FROM z_allowed WHERE id = 3;
";
    let (scenario, different) = replaced(script).await;
    assert_snapshot!(different, @r#"
    -1 	CONSTRAINT listed CHECK (public.is_allowed(VALUE));
    +1     ADD CONSTRAINT b_gone_id_check CHECK (public.is_allowed(id)) NOT VALID;
    +1     ADD CONSTRAINT listed CHECK (public.is_allowed(VALUE)) NOT VALID;
    +1     ADD CONSTRAINT of_part CHECK (public.is_allowed(id)) NOT VALID;
    -1     CONSTRAINT b_gone_id_check CHECK (public.is_allowed(id))
    -2     CONSTRAINT of_part CHECK (public.is_allowed(id))
    +3     id integer
    -3     id integer,
    +1 ALTER DOMAIN public.allowed
    +1 ALTER TABLE public.a_part
    +1 ALTER TABLE public.b_gone
    -1 CREATE DOMAIN public.allowed AS integer
    +1 CREATE DOMAIN public.allowed AS integer;
    "#);
    assert_snapshot!(scenario.exceptions_with_remedies(), @r#"
    CHECK CONSTRAINT DOMAIN public.allowed listed in database shop: ERROR: column "other" of table "a_user" contains values that violate the new constraint (SQLSTATE 23514)
      ALTER DOMAIN public.allowed VALIDATE CONSTRAINT listed;
    CHECK CONSTRAINT TABLE public.a_part of_part in database shop: ERROR: check constraint "of_part" of relation "a_part_1" is violated by some row (SQLSTATE 23514)
      ALTER TABLE public.a_part VALIDATE CONSTRAINT of_part;
    CHECK CONSTRAINT TABLE public.b_gone b_gone_id_check in database shop: ERROR: check constraint "b_gone_id_check" of relation "b_gone" is violated by some row (SQLSTATE 23514)
      ALTER TABLE public.b_gone VALIDATE CONSTRAINT b_gone_id_check;
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_server_refuses_are_never_given_up() {
    let scenario = Scenario::start(|_| {}).await;
    let first = "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1);";
    scenario.run(first).await;
    scenario.back_up().await;
    // The function that computes the column has learned to refuse the rows.
    let second = "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 2 * n; END';
        CREATE TABLE a_user (id int, double int GENERATED ALWAYS AS (twice(id)) STORED); INSERT INTO a_user VALUES (1);
        CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''no more''; END';";
    scenario.run(second).await;
    scenario.back_up().await;
    let standin = &scenario.protected.standin;
    standin.kill_instance(scenario.node.id()).await.unwrap();
    let line = scenario
        .protected
        .wait_for_failure(APPLICATION, "Restore")
        .await
        .unwrap();
    let expected = "public.a_user: 1 rows expected, 0 found";
    assert!(line.contains(expected), "{line}");
    assert!(line.message.starts_with("abandoned the launch"), "{line}");
    assert!(line.contains("ERROR:  no more"), "{line}");
}
