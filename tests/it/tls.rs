//! TLS to Postgres and Redis: a server without the right certificate learns nothing.

use std::path::{Path, PathBuf};

use beseda::config::{Config, Secret};
use reqwest::Method;

use crate::harness::{Authority, Certificate, Cluster, Program, Redis, Reply, eventually};

/// Where the servers are, and how certificates name that.
const HOST: &str = "127.0.0.1";

/// Lets the cluster's Postgres speak TLS with this certificate, besides speaking without.
async fn serve_postgres(cluster: &Cluster, Certificate { certificate, key }: &Certificate) {
    for (file, pem) in [("tls.crt", certificate), ("tls.key", key)] {
        // It is choosy about who owns its key and who may read it: so it writes it itself.
        cluster
            .psql(&format!(
                "COPY (SELECT unnest(string_to_array('{pem}', E'\\n'))) \
                 TO PROGRAM 'umask 077; cat >{file}'"
            ))
            .await;
    }
    cluster.psql("ALTER SYSTEM SET ssl_cert_file = 'tls.crt'").await;
    cluster.psql("ALTER SYSTEM SET ssl_key_file = 'tls.key'").await;
    cluster.psql("ALTER SYSTEM SET ssl = on").await;
    cluster.psql("SELECT pg_reload_conf()").await;
}

/// The cluster's own database over TLS.
fn over_tls(cluster: &Cluster, mode: &str) -> Secret {
    Secret::from(format!("{}?sslmode={mode}", cluster.database_url()))
}

/// Settings with that URL and authority.
fn database(url: &Secret, ca: Option<&Path>) -> impl FnOnce(&mut Config) + use<> {
    let (url, ca) = (url.clone(), ca.map(Path::to_owned));
    move |config| {
        config.database.database_url = url;
        config.database.database_ca = ca;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_believed_by_its_certificate_only() {
    let mut cluster = Cluster::with_own_stack(1, |_| {}).await;
    let (own, foreign) = (Authority::new(), Authority::new());
    let url = over_tls(&cluster, "verify-full");
    let refusal = cluster.refusal(database(&url, Some(own.path()))).await;
    assert!(refusal.contains("TLS"), "a server without TLS: {refusal}");

    serve_postgres(&cluster, &own.sign(HOST)).await;
    // The server reads its settings when it comes to it.
    let replica = eventually(async || {
        let sessions = "SELECT current_setting('ssl')";
        match cluster.psql_value::<String>(sessions).await.as_str() {
            "on" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    replica.await;
    let replica = cluster.add_replica_with(database(&url, Some(own.path()))).await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND application_name = 'beseda'";
    assert!(cluster.psql_value::<u32>(encrypted).await > 0, "nothing is encrypted");
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(replica).open_chat(&bob).await;
    alice.on(replica).send(&chat, "in secret").await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 1);

    // What libpq would not look at is looked at here, whatever the mode is called.
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = over_tls(&cluster, mode);
        let refusal = cluster.refusal(database(&url, Some(foreign.path()))).await;
        assert!(refusal.contains("UnknownIssuer"), "{mode}, another authority: {refusal}");
        let refusal = cluster.refusal(database(&url, None)).await;
        assert!(refusal.contains("UnknownIssuer"), "{mode}, the system's: {refusal}");
    }
    serve_postgres(&cluster, &own.sign("db.example.com")).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = over_tls(&cluster, mode);
        eventually(async || {
            let refusal = cluster.refusal(database(&url, Some(own.path()))).await;
            if refusal.contains("not valid for name") { Ok(()) } else { Err(refusal) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_would_not_be_asked_is_a_mistake_and_refused() {
    let cluster = Cluster::start(1).await;
    let own = Authority::new();
    for mode in ["disable", "prefer"] {
        let url = over_tls(&cluster, mode);
        let refusal = cluster.refusal(database(&url, Some(own.path()))).await;
        assert!(refusal.contains("BESEDA_DATABASE_CA needs sslmode=verify-full"), "{refusal}");
    }
    let plain = cluster.refusal(|config| config.redis_ca = Some(own.path().to_owned())).await;
    assert!(plain.contains("BESEDA_REDIS_CA needs a REDIS_URL that begins with rediss"), "{plain}");
    let empty = tempfile::NamedTempFile::new().expect("a file");
    for file in [empty.path().to_owned(), PathBuf::from("/nowhere/ca.pem")] {
        let url = over_tls(&cluster, "verify-full");
        let refusal = cluster.refusal(database(&url, Some(&file))).await;
        assert!(refusal.contains(&*file.to_string_lossy()), "{refusal}");
        let tls = |config: &mut Config| {
            config.redis_url = Secret::from("rediss://127.0.0.1:1".to_owned());
            config.redis_ca = Some(file.clone());
        };
        let refusal = cluster.refusal(tls).await;
        assert!(refusal.contains(&*file.to_string_lossy()), "{refusal}");
    }
}

/// Lets Redis speak TLS with this certificate, on a port of its own.
async fn serve_redis(
    redis: &mut Redis,
    folder: &Path,
    Certificate { certificate, key }: &Certificate,
) {
    let mut words = vec!["CONFIG".to_owned(), "SET".to_owned()];
    for (setting, pem) in [("tls-cert-file", certificate), ("tls-key-file", key)] {
        // Read again only if its name is another one.
        let path = folder.join(format!("{setting}-{:016x}", rand::random::<u64>()));
        std::fs::write(&path, pem).expect("it can be written");
        words.extend([setting.to_owned(), path.to_string_lossy().into_owned()]);
    }
    // Clients show no certificates.
    words.extend(["tls-auth-clients".to_owned(), "no".to_owned()]);
    redis.command(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_believed_by_its_certificate_only() {
    let mut cluster = Cluster::with_own_stack(1, |_| {}).await;
    let mut redis = cluster.redis().await;
    if redis.command(&["CONFIG", "GET", "tls-port"]).await == Reply::List(Vec::new()) {
        eprintln!("skipped: this Redis was built without TLS");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (own, foreign) = (Authority::new(), Authority::new());
    serve_redis(&mut redis, folder.path(), &own.sign(HOST)).await;
    let port = {
        let listener = std::net::TcpListener::bind((HOST, 0)).expect("a free port");
        listener.local_addr().expect("it is bound").port().to_string()
    };
    redis.command(&["CONFIG", "SET", "tls-port", &port]).await;

    let url = format!("rediss://{HOST}:{port}");
    let trusting = async |cluster: &mut Cluster, authority: &Authority| {
        let ca = authority.path().to_str().expect("UTF-8");
        Program::join(cluster, &[("REDIS_URL", &url), ("BESEDA_REDIS_CA", ca)]).await
    };
    let becomes = async |cluster: &Cluster, replica: usize, status: &str| {
        eventually(async || {
            let answer = cluster.operator(replica).request(Method::GET, "/readyz").await;
            if answer.json["status"] == status { Ok(()) } else { Err(answer.text) }
        })
        .await;
    };
    let (_program, replica) = trusting(&mut cluster, &own).await;
    becomes(&cluster, replica, "ready").await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(replica).open_chat(&bob).await;
    let mut socket = bob.on(replica).connect(&chat).await;
    let sent = alice.on(0).send(&chat, "in secret").await;
    assert_eq!(socket.expect_message().await, sent);
    socket.close().await;

    // It serves on without, and says why.
    let refused = async |cluster: &mut Cluster, authority: &Authority, why: &str| {
        let (program, replica) = trusting(cluster, authority).await;
        eventually(async || {
            let log = program.log();
            if log.contains(why) { Ok(()) } else { Err(log) }
        })
        .await;
        becomes(cluster, replica, "degraded").await;
        (program, replica)
    };
    refused(&mut cluster, &foreign, "UnknownIssuer").await;
    serve_redis(&mut redis, folder.path(), &own.sign("cache.example.com")).await;
    let (_program, replica) = refused(&mut cluster, &own, "NotValidForName").await;
    // Nothing else was wrong.
    serve_redis(&mut redis, folder.path(), &own.sign(HOST)).await;
    becomes(&cluster, replica, "ready").await;
}
