// SPDX-License-Identifier: MIT
//
// What a table's columns may be: refused when the model is made, not when rows are read or the trained model is saved.
#include "capi.h"
#include "model/columns.h"

namespace {

using fusedvae::Columns;
using fusedvae::Json;

constexpr int64_t kOne = 1;

fvae_status create(const fvae_column& column) {
    fvae_config config = small_config();
    config.input_shape = &kOne;
    config.columns = &column;
    config.column_count = 1;
    fvae_model* model = nullptr;
    const fvae_status status = fvae_model_create(&config, 0, &model);
    fvae_model_free(model);
    return status;
}

}  // namespace

TEST(a_fill_is_finite_when_it_is_scaled) {
    fvae_column column = fvae_column_default();
    column.fill = 1e30;
    ok(create(column));
    column.scale = 1e-20;
    CHECK_FAILS(create(column), FVAE_INVALID_ARGUMENT, "fill 1e+30 is infinite when it is scaled");
}

TEST(what_cannot_be_saved_is_refused_at_once) {
    fvae_column column = fvae_column_default();
    column.name =
        "gr\xf6\xdf"
        "e";
    CHECK_FAILS(create(column), FVAE_INVALID_ARGUMENT, "not UTF-8");
    const char* const categories[] = {"a", "\xff"};
    column = fvae_column_default();
    column.categories = categories;
    column.category_count = 2;
    CHECK_FAILS(create(column), FVAE_INVALID_ARGUMENT, "not UTF-8");
}

TEST(entries_of_a_file_are_objects) {
    for (const char* const text : {"[[]]", "[1]", "[{},null]"}) {
        bool refused = false;
        try {
            Columns::from_json(Json::parse(text));
        } catch (const std::invalid_argument&) {
            refused = true;
        }
        CHECK(refused);
    }
}

TEST(encoded_columns_know_where_they_come_from) {
    const Columns columns =
        Columns::from_json(Json::parse(R"([{},{},{"categories":["a","b","c"]},{"categories":["d"]},{},{}])"));
    const int64_t expected[] = {0, 1, 2, 2, 2, 3, 4, 5};
    CHECK_EQUAL(columns.encoded_width(), int64_t{8});
    for (int64_t d = 0; d < 8; ++d) CHECK_EQUAL(columns.source(d), expected[d]);
}

TEST(categories_have_neither_shift_nor_scale) {
    const char* const categories[] = {"a", "b"};
    fvae_column column = fvae_column_default();
    column.shift = 3.0;
    column.scale = 2.0;
    column.categories = categories;
    column.category_count = 2;
    const Columns made = Columns::from_c(&column, 1), read = Columns::from_json(made.to_json());
    for (const Columns& columns : {made, read}) {
        CHECK_EQUAL(columns.list()[0].shift, 0.0);
        CHECK_EQUAL(columns.list()[0].scale, 1.0);
    }
}

TEST(rows_are_encoded_as_the_network_reads_them) {
    const char* const colours[] = {"red", "green", "blue"};
    fvae_column columns[3] = {fvae_column_default(), fvae_column_default(), fvae_column_default()};
    columns[0].shift = 2.0;
    columns[0].scale = 4.0;
    columns[0].fill = 6.0;
    columns[1].categories = colours;
    columns[1].category_count = 3;
    const int64_t raw_width = 3, encoded_width = 5;
    fvae_config config = small_config();
    config.likelihood = FVAE_GAUSSIAN;
    config.input_shape = &raw_width;
    config.columns = columns;
    config.column_count = 3;
    const ModelHandle model = make_model(config);
    const double rows[2][3] = {{10.0, 2.0, -1.5}, {NAN, 0.0, 0.25}};
    const float expected[2][5] = {{2.0f, 0.0f, 0.0f, 1.0f, -1.5f}, {1.0f, 1.0f, 0.0f, 0.0f, 0.25f}};
    fvae_array x = fvae_array_default();
    x.data = rows;
    x.dtype = FVAE_FLOAT64;
    x.rows = 2;
    x.columns = 3;
    float encoded[2][5];
    ok(fvae_model_encoded_rows(model.get(), &x, encoded[0]));
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 5; ++j) CHECK_EQUAL(encoded[i][j], expected[i][j]);

    config.input_shape = &encoded_width;
    config.columns = nullptr;
    config.column_count = 0;
    const ModelHandle plain = make_model(config);
    const uint8_t bytes[5] = {0, 51, 102, 204, 255};
    x.data = bytes;
    x.dtype = FVAE_UINT8;
    x.rows = 1;
    x.columns = 5;
    ok(fvae_model_encoded_rows(plain.get(), &x, encoded[0]));
    for (int j = 0; j < 5; ++j) CHECK_NEAR(encoded[0][j], bytes[j] / 255.0, 1e-7);
    CHECK_FAILS(fvae_model_encoded_rows(plain.get(), &x, nullptr), FVAE_INVALID_ARGUMENT, "encoded is NULL");
    const float bad[5] = {0.0f, 0.0f, HUGE_VALF, 0.0f, 0.0f};
    x.data = bad;
    x.dtype = FVAE_FLOAT32;
    CHECK_FAILS(fvae_model_encoded_rows(plain.get(), &x, encoded[0]), FVAE_INVALID_ARGUMENT, "column 2");
}

TEST(a_large_number_is_told_in_few_digits) {
    fvae_column column = fvae_column_default();
    fvae_config config = small_config();
    config.input_shape = &kOne;
    config.columns = &column;
    config.column_count = 1;
    const ModelHandle model = make_model(config);
    const double value = 1e300;
    fvae_array x = fvae_array_default();
    x.data = &value;
    x.dtype = FVAE_FLOAT64;
    x.rows = x.columns = 1;
    CHECK_FAILS(fvae_model_encode(model.get(), &x, nullptr, nullptr), FVAE_INVALID_ARGUMENT,
                "x holds 1e+300 in row 0, column 0;");
}
