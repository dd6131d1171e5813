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
